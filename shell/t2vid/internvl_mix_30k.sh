#!/usr/bin/env bash
# InternVL3-8B on T2Vid's mix, with T2Vid's values; every picture of a text is a frame of one tile.
export GPUS=${GPUS:-8}
export BATCH_SIZE=${BATCH_SIZE:-64}
export PER_DEVICE_BATCH_SIZE=${PER_DEVICE_BATCH_SIZE:-2}
export MODEL_PATH=${MODEL_PATH:-OpenGVLab/InternVL3-8B}
export META_PATH=${META_PATH:-./shell/data/t2vid_mix_30k.json}
export OUTPUT_DIR=${OUTPUT_DIR:-work_dirs/t2vid/internvl_mix_30k}
SHELL_DIR=$(cd "$(dirname "$0")/.." && pwd)

exec bash "${SHELL_DIR}/launch.sh" \
  --conv_style internvl2_5 \
  --num_adapter_layers 0 \
  --freeze_llm False \
  --freeze_mlp False \
  --freeze_backbone False \
  --sampling_method middle \
  --min_num_frame 24 \
  --max_num_frame 24 \
  --max_seq_length 24576 \
  --learning_rate 5e-6 \
  --weight_decay 0.05 \
  --adam_beta2 0.95 \
  --num_train_epochs 1 \
  --save_steps 9999 \
  --save_only_model True \
  --deepspeed "${SHELL_DIR}/deepspeed/zero_stage3_offload_config.json" \
  "$@"
