#!/usr/bin/env bash
# Starts the training under torchrun with what every recipe shares, then the recipe's flags: the last one given wins. What
# is not given has the default that the script's --help names.
#
# The environment says where and how much: MODEL_PATH, META_PATH, OUTPUT_DIR, GPUS (processes a node), BATCH_SIZE
# (global), PER_DEVICE_BATCH_SIZE; for several nodes also NNODES, and on each NODE_RANK and MASTER_ADDR (MASTER_PORT).
# On a machine without a GPU, GPUS is the number of CPU ranks. With --dry_run the command, its settings, what it trains
# and the memory that takes are printed, and nothing is trained. With --help the flags are explained
# and nothing is started.
set -o pipefail

ROOT=$(cd "$(dirname "$0")/.." && pwd)
# Where the package lies: in a checkout beside this folder, installed around it.
PACKAGE=${ROOT}/internvl_chat
[ -d "${PACKAGE}" ] || PACKAGE=$(dirname "${ROOT}")
SCRIPT="${PACKAGE}/train/finetune_w_bboxes_ml.py"
export PYTHONPATH="${PYTHONPATH}:$(dirname "${PACKAGE}")"

FLAGS=()
DRY_RUN=
for WORD in "$@"; do
  case "${WORD}" in
    --dry_run | --dry-run) DRY_RUN=1 ;;
    --help | -h)
      sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
      exec python "${SCRIPT}" --help
      ;;
    *) FLAGS+=("${WORD}") ;;
  esac
done

# The log is beside what is trained, and what comes next is about it, wherever a flag sends it.
TRAINED_ON=
for ((I = 0; I < ${#FLAGS[@]}; I++)); do
  case "${FLAGS[I]}" in
    --output_dir | --output-dir) OUTPUT_DIR=${FLAGS[I + 1]-} ;;
    --output_dir=* | --output-dir=*) OUTPUT_DIR=${FLAGS[I]#*=} ;;
    --meta | --meta_path | --meta-path) TRAINED_ON=${FLAGS[I + 1]-} ;;
    --meta=* | --meta_path=* | --meta-path=*) TRAINED_ON=${FLAGS[I]#*=} ;;
  esac
done

for NAME in GPUS NNODES BATCH_SIZE PER_DEVICE_BATCH_SIZE; do
  VALUE=${!NAME-1}
  if [[ ! ${VALUE} =~ ^[1-9][0-9]*$ ]]; then
    echo "error: ${NAME} is '${VALUE}': expected a whole number from 1" >&2
    exit 2
  fi
done

# A path that a recipe names lies in the checkout, wherever the recipe is started.
[ -e "${META_PATH}" ] || [ ! -e "${ROOT}/${META_PATH}" ] || META_PATH=${ROOT}/${META_PATH}
NNODES=${NNODES:-1}

# 'train --write': the recipe with all its values, as a script of its own.
if [ -n "${PRINT_RECIPE}" ]; then
  printf '#!/usr/bin/env bash\n# %s, to edit: what the environment says wins, and so do flags given to this script.\n' "${PRINT_RECIPE}"
  for NAME in NNODES GPUS BATCH_SIZE PER_DEVICE_BATCH_SIZE MODEL_PATH META_PATH OUTPUT_DIR; do
    printf 'export %s=${%s:-%q}\n' "${NAME}" "${NAME}" "${!NAME}"
  done
  printf '\nexec bash %q' "${ROOT}/shell/launch.sh"
  for WORD in "${FLAGS[@]}"; do
    case "${WORD}" in --*) printf ' \\\n  %s' "${WORD}" ;; *) printf ' %q' "${WORD}" ;; esac
  done
  printf ' \\\n  "$@"\n'
  exit
fi

GRADIENT_ACC=$((BATCH_SIZE / PER_DEVICE_BATCH_SIZE / GPUS / NNODES))

if [ $((GRADIENT_ACC * PER_DEVICE_BATCH_SIZE * GPUS * NNODES)) -ne "${BATCH_SIZE}" ]; then
  echo "error: BATCH_SIZE ${BATCH_SIZE} is no multiple of PER_DEVICE_BATCH_SIZE ${PER_DEVICE_BATCH_SIZE} x" \
    "GPUS ${GPUS} x NNODES ${NNODES}: every process takes whole passes of a step" >&2
  exit 2
fi

# Several nodes must agree on a port; on one, any that is free will do.
if [ -z "${MASTER_PORT}" ] && [ "${NNODES}" -eq 1 ]; then
  MASTER_PORT=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
fi
export MASTER_PORT=${MASTER_PORT:-34229}
export TF_CPP_MIN_LOG_LEVEL=3
# Libraries' warnings, unless they are asked for.
export PYTHONWARNINGS=${PYTHONWARNINGS:-ignore}
# What DeepSpeed compiles belongs to one installation: two that share a cache build it anew in turns, and wait in line.
INSTALLATION=$(command -v torchrun | cksum | cut -d ' ' -f 1)
export TORCH_EXTENSIONS_DIR=${TORCH_EXTENSIONS_DIR:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/torch_extensions/${INSTALLATION}}
export LAUNCHER=pytorch
# Every pass has another length: blocks of memory that grow leave no gaps between them.
export PYTORCH_CUDA_ALLOC_CONF=${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}

SETTINGS=(
  --model_name_or_path "${MODEL_PATH}"
  --meta_path "${META_PATH}"
  --output_dir "${OUTPUT_DIR}"
  --per_device_train_batch_size "${PER_DEVICE_BATCH_SIZE}"
  --gradient_accumulation_steps "${GRADIENT_ACC}"
  --overwrite_output_dir True
  --freeze_backbone True
  --dataloader_num_workers 4
  --bf16 True
  --save_total_limit 1
  --warmup_ratio 0.03
  --lr_scheduler_type "cosine"
  --logging_steps 1
  --group_by_length True
  --dynamic_image_size True
  --use_thumbnail True
  --report_to tensorboard
  "${FLAGS[@]}"
)
COMMAND=(
  torchrun
  --nnodes="${NNODES}"
  --node_rank="${NODE_RANK:-0}"
  --master_addr="${MASTER_ADDR:-127.0.0.1}"
  --nproc_per_node="${GPUS}"
  --master_port="${MASTER_PORT}"
  "${SCRIPT}" "${SETTINGS[@]}"
)

if [ -n "${DRY_RUN}" ]; then
  printf '%q ' "${COMMAND[@]}" && echo
  python "${SCRIPT}" "${SETTINGS[@]}" --dry_run "$((GPUS * NNODES))" || exit
  echo "next: the same without --dry_run trains" >&2
  exit
fi

if ! command -v torchrun >/dev/null; then
  echo "error: torchrun is not found: activate the environment that the package is installed in" \
    "(source .venv/bin/activate), or pip install -r requirements/internvl_chat.txt" >&2
  exit 1
fi

# What can be told in a moment is told before anything is started or written.
python "${PACKAGE}/train/start_checks.py" "${SETTINGS[@]}" || exit

LOG="${OUTPUT_DIR}/training_log.txt"
MADE=
[ -e "${OUTPUT_DIR}" ] || [ "${NNODES}" -gt 1 ] || MADE=1
if ! mkdir -p "${OUTPUT_DIR}" || ! touch "${LOG}"; then
  echo "error: OUTPUT_DIR ${OUTPUT_DIR} cannot be written to: give another folder" >&2
  exit 1
fi
BEGIN=$(($(wc -l < "${LOG}") + 1))
set -x
"${COMMAND[@]}" 2>&1 | tee -a "${LOG}"
{ STATUS=${PIPESTATUS[0]}; set +x; } 2>/dev/null
# torchrun says a lot after what matters: the last line is what went wrong.
if [ "${STATUS}" -ne 0 ]; then
  REASON=$(tail -n "+${BEGIN}" "${LOG}" | grep -E '^(\[[a-z0-9]+\]: ?)?error: ' | tail -n 1)
  # A start that came to nothing leaves nothing: its log is on the screen.
  if [ -n "${MADE}" ] && [ "$(ls -A "${OUTPUT_DIR}")" = training_log.txt ]; then
    rm -r "${OUTPUT_DIR}"
    LOG=
  fi
  echo "${REASON:-error: the training ended with status ${STATUS}; what it said is above${LOG:+ and in ${LOG}}}" >&2
elif [ "${NODE_RANK:-0}" -eq 0 ]; then
  printf 'next: %s eval --model %q --meta %q --sheet captions.png  # captions what it was trained on, and draws it\n' \
    "${CALLED_AS:-python -m internvl_chat}" "${OUTPUT_DIR}" "${TRAINED_ON:-${META_PATH}}" >&2
fi
exit "${STATUS}"
