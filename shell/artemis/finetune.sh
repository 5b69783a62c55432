#!/usr/bin/env bash
# Artemis' stage 2: language model and projector, on stage 1 made whole by `merge`.
export GPUS=${GPUS:-8}
export BATCH_SIZE=${BATCH_SIZE:-$((16 * GPUS))}
export PER_DEVICE_BATCH_SIZE=${PER_DEVICE_BATCH_SIZE:-16}
export MODEL_PATH=${MODEL_PATH:-work_dirs/artemis/stage_1}
export META_PATH=${META_PATH:-./shell/data/artemis_stage_2.json}
export OUTPUT_DIR=${OUTPUT_DIR:-work_dirs/artemis/finetune}
SHELL_DIR=$(cd "$(dirname "$0")/.." && pwd)

exec bash "${SHELL_DIR}/launch.sh" \
  --conv_style vicuna_v1 \
  --normalize_type clip \
  --force_image_size 224 \
  --dynamic_image_size False \
  --use_thumbnail False \
  --num_adapter_layers 0 \
  --sampling_method middle \
  --min_num_frame 100 \
  --max_num_frame 100 \
  --max_seq_length 3072 \
  --freeze_llm False \
  --freeze_mlp False \
  --pad2square True \
  --learning_rate 2e-5 \
  --num_train_epochs 1 \
  --save_steps 50000 \
  --deepspeed "${SHELL_DIR}/deepspeed/zero_stage2_offload_config.json" \
  "$@"
