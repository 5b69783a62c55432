#!/usr/bin/env bash
# What T2Vid's two runs of MiniCPM-Llama3-V 2.5 share: tower, resampler and language model are trained whole under ZeRO-3
# with parameters and optimizer on the CPU. For LoRA instead: --use_llm_lora 64 --freeze_llm True --freeze_backbone True
export GPUS=${GPUS:-8}
export BATCH_SIZE=${BATCH_SIZE:-64}
export PER_DEVICE_BATCH_SIZE=${PER_DEVICE_BATCH_SIZE:-2}
export MODEL_PATH=${MODEL_PATH:-openbmb/MiniCPM-Llama3-V-2_5}
SHELL_DIR=$(cd "$(dirname "$0")/.." && pwd)

exec bash "${SHELL_DIR}/launch.sh" \
  --conv_style minicpmv2_5 \
  --normalize_type siglip \
  --dynamic_image_size False \
  --use_thumbnail False \
  --num_adapter_layers 0 \
  --freeze_llm False \
  --freeze_mlp False \
  --freeze_backbone False \
  --sampling_method middle \
  --min_num_frame 24 \
  --max_num_frame 24 \
  --max_seq_length 8666 \
  --learning_rate 5e-6 \
  --num_train_epochs 1 \
  --save_steps 9999 \
  --save_only_model True \
  --deepspeed "${SHELL_DIR}/deepspeed/zero_stage3_offload_config.json" \
  "$@"
