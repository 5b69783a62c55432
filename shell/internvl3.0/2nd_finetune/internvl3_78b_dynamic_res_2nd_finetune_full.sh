#!/usr/bin/env bash
# InternVL3-78B, full fine-tuning; the values are in shell/recipes.txt.
exec bash "$(dirname "$0")/../../finetune.sh" internvl3_78b full "$@"
