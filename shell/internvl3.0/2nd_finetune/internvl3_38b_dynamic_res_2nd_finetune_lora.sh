#!/usr/bin/env bash
# InternVL3-38B, LoRA; the values are in shell/recipes.txt.
exec bash "$(dirname "$0")/../../finetune.sh" internvl3_38b lora "$@"
