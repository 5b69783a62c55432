#!/usr/bin/env bash
# CogVLM2-Caption, LoRA of rank 8 on every matrix of the language model's layers; shell/cogvlm2/finetune.sh has the rest.
export BATCH_SIZE=${BATCH_SIZE:-16}
export OUTPUT_DIR=${OUTPUT_DIR:-work_dirs/cogvlm2/lora}
SHELL_DIR=$(cd "$(dirname "$0")/.." && pwd)
exec bash "${SHELL_DIR}/cogvlm2/finetune.sh" \
  --freeze_llm True \
  --use_llm_lora 8 \
  --lora_dropout 0.1 \
  --learning_rate 4e-5 \
  --deepspeed "${SHELL_DIR}/deepspeed/zero_stage2_config.json" \
  "$@"
