#!/usr/bin/env bash
# MiniCPM-Llama3-V 2.5 on 20,000 videos and 10,000 long texts; shell/t2vid/minicpm.sh has the rest.
export META_PATH=${META_PATH:-./shell/data/t2vid_mix_30k.json}
export OUTPUT_DIR=${OUTPUT_DIR:-work_dirs/t2vid/minicpm_mix_30k}
exec bash "$(dirname "$0")/minicpm.sh" --weight_decay 0.05 --adam_beta2 0.95 "$@"
