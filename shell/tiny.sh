#!/usr/bin/env bash
# The tiny InternVL that ships with this package, by IntentVCNet's recipe, on a CPU: a check of data and machine in minutes.
#
#   META_PATH=data.json sh shell/tiny.sh [flags]
#
# It sees six frames of 80 pixels, knows little English and learns your clips by heart. shell/launch.sh has the rest.
ROOT=$(cd "$(dirname "$0")/.." && pwd)
export GPUS=${GPUS:-2}
export BATCH_SIZE=${BATCH_SIZE:-4}
export PER_DEVICE_BATCH_SIZE=${PER_DEVICE_BATCH_SIZE:-2}
export MODEL_PATH=${MODEL_PATH:-${ROOT}/quickstart/base}
export OUTPUT_DIR=${OUTPUT_DIR:-work_dirs/tiny}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

exec bash "${ROOT}/shell/internvl3.0/2nd_finetune/roiattention_ml.sh" \
  --force_image_size 80 \
  --min_num_frame 6 \
  --max_num_frame 6 \
  --sampling_method centre \
  --dataloader_num_workers 1 \
  --use_llm_lora 32 \
  --lora_dropout 0 \
  --unfreeze_lm_head True \
  --grad_checkpoint False \
  --attn_implementation eager \
  --learning_rate 2e-3 \
  --group_by_length False \
  --logging_steps 25 \
  --max_steps 400 \
  --save_steps 400 \
  "$@"
