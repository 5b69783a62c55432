#!/usr/bin/env bash
# InternVL2_5-2B, LoRA; the values are in shell/recipes.txt.
exec bash "$(dirname "$0")/../../finetune.sh" internvl2_5_2b lora "$@"
