#!/usr/bin/env bash
# InternVL2_5-26B, full fine-tuning; the values are in shell/recipes.txt.
exec bash "$(dirname "$0")/../../finetune.sh" internvl2_5_26b full "$@"
