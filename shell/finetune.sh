#!/usr/bin/env bash
# Fine-tunes a plain InternVL, without box adapters, by a row of shell/recipes.txt:
#
#   GPUS=8 PER_DEVICE_BATCH_SIZE=1 bash shell/finetune.sh internvl2_2b full [flags]
#
# The environment and the flags given here win over the row; shell/launch.sh explains them.
SHELL_DIR=$(cd "$(dirname "$0")" && pwd)
ROW=$(awk -v model="$1" -v mode="$2" '$1 == model && $2 == mode' "${SHELL_DIR}/recipes.txt")
if [ -z "${ROW}" ]; then
  echo "error: no recipe '$1 $2': expected a model of shell/recipes.txt, and full or lora" >&2
  exit 2
fi
read -r MODEL MODE HUB_ID CONV_STYLE NODES PROCESSES BATCH PER_DEVICE RATE DECAY DROP LENGTH TILES ZERO <<<"${ROW}"
shift 2

export NNODES=${NNODES:-${NODES}}
export GPUS=${GPUS:-${PROCESSES}}
export BATCH_SIZE=${BATCH_SIZE:-${BATCH}}
export PER_DEVICE_BATCH_SIZE=${PER_DEVICE_BATCH_SIZE:-${PER_DEVICE}}
export MODEL_PATH=${MODEL_PATH:-OpenGVLab/${HUB_ID}}
export META_PATH=${META_PATH:-./shell/data/grounding.json}
export OUTPUT_DIR=${OUTPUT_DIR:-work_dirs/${MODEL}_${MODE}}

if [ "${MODE}" = full ]; then
  TRAINED=(--freeze_llm False --freeze_mlp False)
else
  TRAINED=(--freeze_llm True --freeze_mlp True --use_llm_lora 16)
fi

exec bash "${SHELL_DIR}/launch.sh" \
  "${TRAINED[@]}" \
  --num_adapter_layers 0 \
  --conv_style "${CONV_STYLE}" \
  --max_dynamic_patch "${TILES}" \
  --max_seq_length "${LENGTH}" \
  --learning_rate "${RATE}" \
  --weight_decay "${DECAY}" \
  --drop_path_rate "${DROP}" \
  --num_train_epochs 1 \
  --save_steps 200 \
  --deepspeed "$(dirname "${SHELL_DIR}")/${ZERO}" \
  "$@"
