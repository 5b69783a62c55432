#!/usr/bin/env bash
# CogVLM2-Caption, language model and projector whole; shell/cogvlm2/finetune.sh has the rest.
export BATCH_SIZE=${BATCH_SIZE:-64}
export OUTPUT_DIR=${OUTPUT_DIR:-work_dirs/cogvlm2/full}
SHELL_DIR=$(cd "$(dirname "$0")/.." && pwd)
exec bash "${SHELL_DIR}/cogvlm2/finetune.sh" \
  --freeze_llm False \
  --learning_rate 1e-5 \
  --deepspeed "$(dirname "${SHELL_DIR}")/zero_stage3_config.json" \
  "$@"
