#!/usr/bin/env bash
# InternVL2-4B, LoRA; the values are in shell/recipes.txt.
exec bash "$(dirname "$0")/../../finetune.sh" internvl2_4b lora "$@"
