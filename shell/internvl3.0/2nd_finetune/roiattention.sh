#!/usr/bin/env bash
# IntentVCNet's single-layer variant: one box adapter on the ViT's output. Everything else is roiattention_ml.sh.
export OUTPUT_DIR=${OUTPUT_DIR:-work_dirs/internvl_chat_v3/tp-single}
exec bash "$(dirname "$0")/roiattention_ml.sh" \
  --num_adapter_layers 1 \
  --min_num_frame 16 \
  --max_num_frame 32 \
  --learning_rate 2e-5 \
  "$@"
