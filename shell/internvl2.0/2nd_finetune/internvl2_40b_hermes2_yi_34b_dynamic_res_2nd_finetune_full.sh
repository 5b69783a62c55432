#!/usr/bin/env bash
# InternVL2-40B, full fine-tuning; the values are in shell/recipes.txt.
exec bash "$(dirname "$0")/../../finetune.sh" internvl2_40b full "$@"
