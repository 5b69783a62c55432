#!/usr/bin/env bash
# InternVL2-8B, full fine-tuning; the values are in shell/recipes.txt.
exec bash "$(dirname "$0")/../../finetune.sh" internvl2_8b full "$@"
