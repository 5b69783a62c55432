#!/usr/bin/env bash
# InternVL3-2B, full fine-tuning; the values are in shell/recipes.txt.
exec bash "$(dirname "$0")/../../finetune.sh" internvl3_2b full "$@"
