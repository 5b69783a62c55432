#!/usr/bin/env bash
# MiniCPM-Llama3-V 2.5 on 200,000 videos, what the mix is held against; shell/t2vid/minicpm.sh has the rest.
export META_PATH=${META_PATH:-./shell/data/t2vid_video_200k.json}
export OUTPUT_DIR=${OUTPUT_DIR:-work_dirs/t2vid/minicpm_baseline_200k}
exec bash "$(dirname "$0")/minicpm.sh" --weight_decay 0.01 --adam_beta2 0.999 "$@"
