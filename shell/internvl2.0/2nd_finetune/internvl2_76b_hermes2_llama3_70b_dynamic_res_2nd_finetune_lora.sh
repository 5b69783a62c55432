#!/usr/bin/env bash
# InternVL2-Llama3-76B, LoRA; the values are in shell/recipes.txt.
exec bash "$(dirname "$0")/../../finetune.sh" internvl2_76b lora "$@"
