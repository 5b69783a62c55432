#!/usr/bin/env bash
# What Artemis' three stages share: 100 frames a video, which become 356 tokens.
export GPUS=${GPUS:-8}
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
  --freeze_mlp False \
  "$@"
