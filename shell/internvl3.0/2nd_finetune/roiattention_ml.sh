#!/usr/bin/env bash
# IntentVCNet: LoRA on the language model and a box adapter after each of the last five ViT layers.
#
#   GPUS=4 BATCH_SIZE=16 PER_DEVICE_BATCH_SIZE=1 sh shell/internvl3.0/2nd_finetune/roiattention_ml.sh [flags]
#
# Flags given here come last and so win; shell/launch.sh has the rest, several nodes among it.
export GPUS=${GPUS:-4}
export BATCH_SIZE=${BATCH_SIZE:-16}
export PER_DEVICE_BATCH_SIZE=${PER_DEVICE_BATCH_SIZE:-1}
export MODEL_PATH=${MODEL_PATH:-OpenGVLab/InternVL3-8B}
export META_PATH=${META_PATH:-./shell/data/intentvc_caption.json}
export OUTPUT_DIR=${OUTPUT_DIR:-work_dirs/internvl_chat_v3/tp-last5}

ROOT=$(cd "$(dirname "$0")/../../.." && pwd)
exec bash "${ROOT}/shell/launch.sh" \
  --conv_style "internvl2_5" \
  --max_dynamic_patch 12 \
  --min_num_frame 32 \
  --max_num_frame 48 \
  --freeze_llm False \
  --freeze_mlp False \
  --num_train_epochs 2 \
  --save_steps 100 \
  --learning_rate 5e-5 \
  --weight_decay 0.05 \
  --max_seq_length 16384 \
  --num_adapter_layers 5 \
  --use_llm_lora 128 \
  --deepspeed "${ROOT}/zero_stage3_config.json" \
  "$@"
