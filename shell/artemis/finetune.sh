#!/usr/bin/env bash
# Artemis' stage 2: language model and projector, on stage 1 made whole by `merge`.
# shell/artemis/stage.sh has the rest.
export GPUS=${GPUS:-8}
export BATCH_SIZE=${BATCH_SIZE:-$((16 * GPUS))}
export PER_DEVICE_BATCH_SIZE=${PER_DEVICE_BATCH_SIZE:-16}
export MODEL_PATH=${MODEL_PATH:-work_dirs/artemis/stage_1}
export META_PATH=${META_PATH:-./shell/data/artemis_stage_2.json}
export OUTPUT_DIR=${OUTPUT_DIR:-work_dirs/artemis/finetune}
SHELL_DIR=$(cd "$(dirname "$0")/.." && pwd)

exec bash "${SHELL_DIR}/artemis/stage.sh" \
  --freeze_llm False \
  --pad2square True \
  --learning_rate 2e-5 \
  --num_train_epochs 1 \
  --save_steps 50000 \
  --deepspeed "${SHELL_DIR}/deepspeed/zero_stage2_offload_config.json" \
  "$@"
