"""What a run would be, without running it: its settings, what it trains, and the memory and time that takes."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from internvl_chat.contracts import UserError
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.data.records.annotations import load_meta, read_mix
from internvl_chat.data.records.record_questions import group_by_prompt
from internvl_chat.model.loading import load_config, with_modules
from internvl_chat.model.memory.recomputation import Recomputation
from internvl_chat.model.trainable import TrainablePart
from internvl_chat.planning.cards import GPUS
from internvl_chat.planning.footprint import frames_within
from internvl_chat.planning.inspection import GIB, inspect_checkpoint
from internvl_chat.planning.plan import HALF_PRECISION, USABLE_SHARE, Machine, Settings, Workload, plan_as_set
from internvl_chat.train.arguments import RunArguments
from internvl_chat.train.workload import (
    ShownAmounts,
    offloads,
    recomputation_asked_for,
    storage_of,
    workload_of,
    zero_stage,
)

NOTHING_TRAINED = (
    "nothing is trained: --freeze_llm, --freeze_mlp and --freeze_backbone leave nothing without LoRA or box adapters"
)
_TRAINING_SETTINGS = (
    "learning_rate lr_scheduler_type warmup_steps weight_decay num_train_epochs max_steps save_steps bf16 deepspeed "
    "seed output_dir"
).split()
# What is planned for where nobody says.
_GPU = "h100"
# A sample that fills `max_seq_length` has few words of answer beside its pictures.
_ANSWER_TOKENS = 32
_HALF_TIMES = "times are those of bfloat16: in float32 products take several times as long\n"


def describe_run(run: RunArguments, prompt_config: PromptConfig, trained: TrainablePart) -> str:
    """The effective settings, a step, parameters, memory and time, as text.

    A config.json is all that is read of the model, and the annotations of the data. Where the meta JSON is not there,
    memory is that of samples as long as `max_seq_length` allows. `args.dry_run` is the number of ranks.

    Raises:
        UserError: nothing is trained, or the data cannot be used.
    """
    model_args, args = run.model, run.training
    ranks, stage = args.dry_run, zero_stage(args.deepspeed)
    per_rank, accumulated = args.per_device_train_batch_size, args.gradient_accumulation_steps
    model = inspect_checkpoint(
        model_args.model_name_or_path,
        trained,
        num_adapter_layers=model_args.num_adapter_layers,
        modules=prompt_config.modules,
    )
    if not sum(model.trained.values()):
        raise UserError(NOTHING_TRAINED)
    config = load_config(model_args.model_name_or_path)
    with_modules(config, prompt_config.modules)
    workload = _workload(config, run, prompt_config, ranks * per_rank * accumulated)
    layers = config.text_config.num_hidden_layers
    recomputed = recomputation_asked_for(model_args.grad_checkpoint, layers)
    memory_gib, storage = GPUS[_GPU].memory_gib, storage_of(args)
    plan = plan_as_set(
        config,
        trained,
        model_args.num_adapter_layers,
        workload,
        Machine(ranks, int(memory_gib * GIB), _GPU),
        Settings(
            workload.max_frames, per_rank, Recomputation.of_layers(layers) if recomputed is None else recomputed, stage
        ),
        lora_dropout=model_args.lora_dropout,
        storage=storage,
    )
    fits = plan.peak_bytes <= USABLE_SHARE * memory_gib * GIB
    training = args.to_dict()
    return "\n".join(
        [
            *_table("model", asdict(model_args)),
            *_table("data", asdict(run.data) | prompt_config.flags()),
            *_table("training", {name: training[name] for name in _TRAINING_SETTINGS}),
            f"step: {ranks} ranks x {per_rank} samples x {accumulated} accumulated "
            f"= {ranks * per_rank * accumulated} samples, ZeRO stage {stage}",
            replace(model, training_bytes={}).as_text(),
            f"plan, on {ranks} {_GPU.upper()} of {memory_gib} GiB: {'fits' if fits else 'does not fit'}"
            + (", and less where the DeepSpeed file offloads" if offloads(args.deepspeed) else ""),
            plan.as_text(),
            *([] if storage.activation == HALF_PRECISION.activation else [_HALF_TIMES]),
        ]
    )


def _workload(config: Any, run: RunArguments, prompt_config: PromptConfig, batch_size: int) -> Workload:
    data_args, args = run.data, run.training
    epochs = math.ceil(args.num_train_epochs)
    if Path(data_args.meta_path).is_file():
        passes = group_by_prompt(read_mix(load_meta(Path(data_args.meta_path))), data_args.captions_per_pass or None)
        workload = workload_of(passes, shown=ShownAmounts.of(prompt_config), epochs=epochs, batch_size=batch_size)
    else:
        most = frames_within(config, prompt_config.max_seq_length)
        workload = Workload(batch_size, 1, _ANSWER_TOKENS, True, most, most, 1, batch_size)
    if args.max_steps > 0:
        return replace(workload, epochs=args.max_steps * batch_size / workload.passes)
    return workload


def _table(title: str, rows: dict[str, Any]) -> list[str]:
    return [f"{title}:", *(f"  {name:<30}{value}" for name, value in rows.items())]
