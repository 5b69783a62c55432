#!/usr/bin/env bash
# Artemis' stage 3: LoRA, projector and region encoder, on stage 2 made whole by `merge`; bf16 where the original has fp16.
export GPUS=${GPUS:-8}
export BATCH_SIZE=${BATCH_SIZE:-$((6 * 20 * GPUS))}
export PER_DEVICE_BATCH_SIZE=${PER_DEVICE_BATCH_SIZE:-6}
export MODEL_PATH=${MODEL_PATH:-work_dirs/artemis/stage_2}
export META_PATH=${META_PATH:-./shell/data/artemis_stage_3.json}
export OUTPUT_DIR=${OUTPUT_DIR:-work_dirs/artemis/finetune_ref}
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
  --region_tokens 4 \
  --region_choice cluster \
  --freeze_llm True \
  --freeze_mlp False \
  --use_llm_lora 16 \
  --lora_alpha 16 \
  --pad2square True \
  --learning_rate 4e-5 \
  --lr_scheduler_type constant \
  --num_train_epochs 3 \
  --save_steps 50000 \
  --deepspeed "${SHELL_DIR}/deepspeed/zero_stage2_offload_config.json" \
  "$@"
