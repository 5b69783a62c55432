#!/usr/bin/env bash
# InternVL2_5-1B, full fine-tuning; the values are in shell/recipes.txt.
exec bash "$(dirname "$0")/../../finetune.sh" internvl2_5_1b full "$@"
