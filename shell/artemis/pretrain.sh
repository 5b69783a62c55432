#!/usr/bin/env bash
# Artemis' stage 1: the projector alone, on a base that `convert LLAMA START --vision_tower CLIP` has begun.
# shell/artemis/stage.sh has the rest.
export GPUS=${GPUS:-8}
export BATCH_SIZE=${BATCH_SIZE:-$((32 * GPUS))}
export PER_DEVICE_BATCH_SIZE=${PER_DEVICE_BATCH_SIZE:-32}
export MODEL_PATH=${MODEL_PATH:-work_dirs/artemis/start}
export META_PATH=${META_PATH:-./shell/data/artemis_stage_1.json}
export OUTPUT_DIR=${OUTPUT_DIR:-work_dirs/artemis/pretrain}
SHELL_DIR=$(cd "$(dirname "$0")/.." && pwd)

exec bash "${SHELL_DIR}/artemis/stage.sh" \
  --freeze_llm True \
  --learning_rate 1e-3 \
  --num_train_epochs 1 \
  --save_steps 24000 \
  --dataloader_num_workers 8 \
  --deepspeed "${SHELL_DIR}/deepspeed/zero_stage2_config.json" \
  "$@"
