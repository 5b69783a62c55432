#!/usr/bin/env bash
# IntentVCNet: LoRA on the language model and a box adapter after each of the last five ViT layers.
#
#   GPUS=4 BATCH_SIZE=16 PER_DEVICE_BATCH_SIZE=1 sh shell/internvl3.0/2nd_finetune/roiattention_ml.sh [flags]
#
# Flags given here come last and so win. Several nodes: set NNODES, NODE_RANK and MASTER_ADDR on each.
# On a machine without a GPU, GPUS is the number of CPU ranks.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@"
set -o pipefail
set -x

NNODES=${NNODES:-1}
NODE_RANK=${NODE_RANK:-0}
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}
GPUS=${GPUS:-4}
BATCH_SIZE=${BATCH_SIZE:-16}
PER_DEVICE_BATCH_SIZE=${PER_DEVICE_BATCH_SIZE:-1}
GRADIENT_ACC=$((BATCH_SIZE / PER_DEVICE_BATCH_SIZE / GPUS / NNODES))

MODEL_PATH=${MODEL_PATH:-OpenGVLab/InternVL3-8B}
META_PATH=${META_PATH:-./shell/data/intentvc_caption.json}
OUTPUT_DIR=${OUTPUT_DIR:-work_dirs/internvl_chat_v3/tp-last5}

export PYTHONPATH="${PYTHONPATH}:$(pwd)"
export MASTER_PORT=${MASTER_PORT:-34229}
export TF_CPP_MIN_LOG_LEVEL=3
export LAUNCHER=pytorch

mkdir -p "${OUTPUT_DIR}"

torchrun \
  --nnodes="${NNODES}" \
  --node_rank="${NODE_RANK}" \
  --master_addr="${MASTER_ADDR}" \
  --nproc_per_node="${GPUS}" \
  --master_port="${MASTER_PORT}" \
  internvl_chat/train/finetune_w_bboxes_ml.py \
  --model_name_or_path "${MODEL_PATH}" \
  --conv_style "internvl2_5" \
  --use_fast_tokenizer False \
  --output_dir "${OUTPUT_DIR}" \
  --meta_path "${META_PATH}" \
  --overwrite_output_dir True \
  --force_image_size 448 \
  --max_dynamic_patch 12 \
  --min_num_frame 32 \
  --max_num_frame 48 \
  --down_sample_ratio 0.5 \
  --drop_path_rate 0.0 \
  --freeze_llm False \
  --freeze_mlp False \
  --freeze_backbone True \
  --vision_select_layer -1 \
  --dataloader_num_workers 4 \
  --bf16 True \
  --num_train_epochs 2 \
  --per_device_train_batch_size "${PER_DEVICE_BATCH_SIZE}" \
  --gradient_accumulation_steps "${GRADIENT_ACC}" \
  --evaluation_strategy "no" \
  --save_strategy "steps" \
  --save_steps 100 \
  --save_total_limit 1 \
  --learning_rate 5e-5 \
  --weight_decay 0.05 \
  --warmup_ratio 0.03 \
  --lr_scheduler_type "cosine" \
  --logging_steps 1 \
  --max_seq_length 16384 \
  --do_train True \
  --grad_checkpoint True \
  --group_by_length True \
  --dynamic_image_size True \
  --use_thumbnail True \
  --ps_version 'v2' \
  --num_adapter_layers 5 \
  --use_llm_lora 128 \
  --deepspeed "zero_stage3_config.json" \
  --report_to tensorboard \
  "$@" \
  2>&1 | tee -a "${OUTPUT_DIR}/training_log.txt"
