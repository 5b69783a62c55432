#!/usr/bin/env bash
# InternVL3-1B, full fine-tuning; the values are in shell/recipes.txt.
exec bash "$(dirname "$0")/../../finetune.sh" internvl3_1b full "$@"
