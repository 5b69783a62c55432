#!/usr/bin/env bash
# Artemis' stage 3: LoRA, projector and region encoder, on stage 2 made whole by `merge`; bf16 where the original has fp16.
# shell/artemis/stage.sh has the rest.
export GPUS=${GPUS:-8}
export BATCH_SIZE=${BATCH_SIZE:-$((6 * 20 * GPUS))}
export PER_DEVICE_BATCH_SIZE=${PER_DEVICE_BATCH_SIZE:-6}
export MODEL_PATH=${MODEL_PATH:-work_dirs/artemis/stage_2}
export META_PATH=${META_PATH:-./shell/data/artemis_stage_3.json}
export OUTPUT_DIR=${OUTPUT_DIR:-work_dirs/artemis/finetune_ref}
SHELL_DIR=$(cd "$(dirname "$0")/.." && pwd)

exec bash "${SHELL_DIR}/artemis/stage.sh" \
  --region_tokens 4 \
  --region_choice cluster \
  --freeze_llm True \
  --use_llm_lora 16 \
  --lora_alpha 16 \
  --pad2square True \
  --learning_rate 4e-5 \
  --lr_scheduler_type constant \
  --num_train_epochs 3 \
  --save_steps 50000 \
  --deepspeed "${SHELL_DIR}/deepspeed/zero_stage2_offload_config.json" \
  "$@"
