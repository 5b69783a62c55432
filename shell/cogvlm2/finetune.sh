#!/usr/bin/env bash
# What the two recipes of CogVLM2-Caption share: frames as its `chat` prompts show them, the vision tower frozen, the
# projector with its convolution trained. For a frozen projector: --freeze_mlp True
export GPUS=${GPUS:-8}
export PER_DEVICE_BATCH_SIZE=${PER_DEVICE_BATCH_SIZE:-1}
export MODEL_PATH=${MODEL_PATH:-THUDM/cogvlm2-llama3-caption}
export META_PATH=${META_PATH:-./shell/data/cogvlm2_caption.json}
SHELL_DIR=$(cd "$(dirname "$0")/.." && pwd)

exec bash "${SHELL_DIR}/launch.sh" \
  --conv_style cogvlm2-chat \
  --frame_choice chat \
  --max_num_frame 24 \
  --normalize_type clip \
  --force_image_size 224 \
  --dynamic_image_size False \
  --use_thumbnail False \
  --num_adapter_layers 0 \
  --freeze_mlp False \
  --max_seq_length 2048 \
  --weight_decay 0.05 \
  --num_train_epochs 1 \
  --save_steps 200 \
  "$@"
