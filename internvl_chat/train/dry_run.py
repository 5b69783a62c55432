"""What a run would be, without running it: its settings, what it trains, and the memory that takes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from internvl_chat.model.footprint import frames_within
from internvl_chat.model.inspection import inspect_checkpoint
from internvl_chat.model.loading import load_config
from internvl_chat.model.trainable import TrainablePart
from internvl_chat.train.arguments import DataArguments, FinetuneArguments, ModelArguments
from internvl_chat.train.planning import zero_stage

_TRAINING_SETTINGS = (
    "learning_rate lr_scheduler_type warmup_steps weight_decay num_train_epochs max_steps save_steps bf16 deepspeed "
    "seed output_dir"
).split()


def describe_run(
    model_args: ModelArguments, data_args: DataArguments, args: FinetuneArguments, trained: TrainablePart
) -> str:
    """The effective settings, a step, parameters and memory, as text; a config.json is all that is read of the model.

    Memory is estimated for a sample as long as `max_seq_length` allows. `args.dry_run` is the number of ranks.
    """
    ranks = args.dry_run
    stage = zero_stage(args.deepspeed)
    per_rank, accumulated = args.per_device_train_batch_size, args.gradient_accumulation_steps
    memory = inspect_checkpoint(
        model_args.model_name_or_path,
        trained,
        num_adapter_layers=model_args.num_adapter_layers,
        num_frames=frames_within(load_config(model_args.model_name_or_path), data_args.max_seq_length),
        ranks=ranks if stage == 3 else 1,
    )
    training = args.to_dict()
    return "\n".join(
        [
            *_table("model", asdict(model_args)),
            *_table("data", asdict(data_args)),
            *_table("training", {name: training[name] for name in _TRAINING_SETTINGS}),
            f"step: {ranks} ranks x {per_rank} samples x {accumulated} accumulated "
            f"= {ranks * per_rank * accumulated} samples, ZeRO stage {stage}",
            memory.as_text(),
        ]
    )


def _table(title: str, rows: dict[str, Any]) -> list[str]:
    return [f"{title}:", *(f"  {name:<30}{value}" for name, value in rows.items())]
