#!/usr/bin/env bash
# InternVL2_5-38B, full fine-tuning; the values are in shell/recipes.txt.
exec bash "$(dirname "$0")/../../finetune.sh" internvl2_5_38b full "$@"
