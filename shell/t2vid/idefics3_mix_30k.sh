#!/usr/bin/env bash
# Idefics3-8B-Llama3 on T2Vid's mix, with T2Vid's values; every picture is one tile of 364 pixels, 169 tokens.
export GPUS=${GPUS:-8}
export BATCH_SIZE=${BATCH_SIZE:-64}
export PER_DEVICE_BATCH_SIZE=${PER_DEVICE_BATCH_SIZE:-2}
export MODEL_PATH=${MODEL_PATH:-HuggingFaceM4/Idefics3-8B-Llama3}
export META_PATH=${META_PATH:-./shell/data/t2vid_mix_30k.json}
export OUTPUT_DIR=${OUTPUT_DIR:-work_dirs/t2vid/idefics3_mix_30k}
SHELL_DIR=$(cd "$(dirname "$0")/.." && pwd)

exec bash "${SHELL_DIR}/launch.sh" \
  --conv_style idefics3 \
  --normalize_type siglip \
  --force_image_size 364 \
  --dynamic_image_size False \
  --use_thumbnail False \
  --num_adapter_layers 0 \
  --freeze_llm False \
  --freeze_mlp False \
  --freeze_backbone False \
  --sampling_method middle \
  --min_num_frame 24 \
  --max_num_frame 24 \
  --max_seq_length 131072 \
  --learning_rate 5e-6 \
  --weight_decay 0.01 \
  --num_train_epochs 1 \
  --save_steps 9999 \
  --save_only_model True \
  --deepspeed "${SHELL_DIR}/deepspeed/zero_stage3_offload_config.json" \
  "$@"
