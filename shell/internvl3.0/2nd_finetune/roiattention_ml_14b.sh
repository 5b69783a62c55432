#!/usr/bin/env bash
# roiattention_ml.sh on InternVL3-14B.
export MODEL_PATH=${MODEL_PATH:-OpenGVLab/InternVL3-14B}
export OUTPUT_DIR=${OUTPUT_DIR:-work_dirs/internvl_chat_v3/tp-last5-14b}
exec bash "$(dirname "$0")/roiattention_ml.sh" "$@"
