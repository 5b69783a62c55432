#!/usr/bin/env bash
# InternVL3-2B, LoRA; the values are in shell/recipes.txt.
exec bash "$(dirname "$0")/../../finetune.sh" internvl3_2b lora "$@"
