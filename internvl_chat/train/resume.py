"""How a run goes on as if it had never been killed: from which checkpoint, and what it remembers beside its weights.

transformers writes the state of callbacks to `trainer_state.json`; reading it back is done here, since its own way
would also bring back the settings of the run that was killed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from internvl_chat.contracts import UserError
from internvl_chat.files import read_json
from internvl_chat.model.checkpoint import (
    COMPLETION_MARK_NAME,
    FILE_LIST_NAME,
    REPLACED_NAME,
    can_go_on_from,
    complete_checkpoints,
    half_written_checkpoints,
    is_complete,
    step_of,
)
from internvl_chat.train.arguments import FinetuneArguments, RunArguments
from internvl_chat.train.fault_log import FaultLog, SkippedSample
from internvl_chat.train.workload import zero_stage

logger = logging.getLogger("internvl_chat.train")

RUN_RECORD_NAME = "run.json"
_PARTS_TRAINED = (
    "num_adapter_layers",
    "use_llm_lora",
    "use_backbone_lora",
    "freeze_llm",
    "freeze_mlp",
    "freeze_backbone",
    "unfreeze_vit_layers",
    "unfreeze_lm_head",
)
# Kept in the optimizer's and the schedule's own state, and read back with it: a flag would change nothing.
_OPTIMIZER = ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "optim")


def checkpoint_to_resume(args: FinetuneArguments) -> Path | None:
    """Where to go on: the flag's checkpoint, or the newest complete one of a used output folder.

    Raises:
        UserError: the output folder holds files but no checkpoint, and `--overwrite_output_dir` is off; or what
            `--resume_from_checkpoint` asks for is not there.
    """
    asked = (args.resume_from_checkpoint or "").lower()
    if asked not in ("", "true", "false"):
        folder = Path(str(args.resume_from_checkpoint))
        if not can_go_on_from(folder):
            raise UserError(
                f"--resume_from_checkpoint {folder}: a complete checkpoint was expected there, with the state of the "
                f"optimizer ({FILE_LIST_NAME}, {COMPLETION_MARK_NAME} and the files they speak of)"
            )
        return folder
    output_dir = Path(args.output_dir)
    if (args.overwrite_output_dir and asked != "true") or not (output_dir.is_dir() or asked == "true"):
        return None
    cut_off = half_written_checkpoints(output_dir)
    for folder in cut_off:
        logger.warning("%s was cut off while being written and is skipped", folder)
    replaced = sorted(mark.parent for mark in output_dir.glob(f"checkpoint-*/{REPLACED_NAME}"))
    checkpoints = [folder for folder in complete_checkpoints(output_dir) if folder not in replaced]
    if checkpoints:
        logger.warning("resuming from %s; --overwrite_output_dir True starts anew", checkpoints[-1])
        return checkpoints[-1]
    if asked == "true":
        raise UserError(f"--resume_from_checkpoint True: {output_dir} holds no complete checkpoint of this run")
    # The log that the shell script writes, and the folders it makes, are there before training starts.
    expected = {"training_log.txt", "runs", RUN_RECORD_NAME, *(folder.name for folder in [*replaced, *cut_off])}
    leftovers = [path.name for path in output_dir.iterdir() if path.name not in expected]
    if leftovers:
        raise UserError(
            f"--output_dir {output_dir} holds files ({', '.join(sorted(leftovers)[:3])}, ...) but no checkpoint to go "
            "on from: give a new folder, or --overwrite_output_dir True"
        )
    return None


def checked_checkpoint(run: RunArguments) -> Path | None:
    """Where to go on, after a look at what the run before trained, and on how many ranks.

    Raises:
        UserError: see `checkpoint_to_resume`, `check_same_settings` and `check_ranks`.
    """
    checkpoint = checkpoint_to_resume(run.training)
    if checkpoint:
        check_same_settings(checkpoint, run)
        if run.training.deepspeed:
            check_ranks(checkpoint, run.training.world_size, run.training.universal)
    return checkpoint


def ranks_of(checkpoint: Path) -> int:
    """How many ranks wrote a checkpoint: each of several leaves the state of its random numbers."""
    return max(1, len(list(checkpoint.glob("rng_state_*.pth"))))


def check_ranks(checkpoint: Path, world_size: int, universal: bool) -> None:
    """DeepSpeed cut the optimizer's state into a piece a rank.

    Args:
        universal: go on with any number of ranks all the same, with an optimizer that begins anew.
    Raises:
        UserError: the checkpoint was written by another number of ranks, and the run is not `universal`.
    """
    before = ranks_of(checkpoint)
    if before == world_size:
        return
    if not universal:
        raise UserError(
            f"{checkpoint}: was written by {before} ranks, and this run has {world_size}: go on with {before} GPUs, or "
            "give --universal True, which takes its weights and schedule and begins with a new optimizer"
        )
    logger.warning(
        "%s: was written by %d ranks, and this run has %d: weights, step and schedule go on, and the moments of the "
        "optimizer begin anew",
        checkpoint,
        before,
        world_size,
    )


def engine_of(args: FinetuneArguments) -> str:
    """What keeps weights and optimizer: of another one's checkpoints the optimizer cannot be read."""
    stage = zero_stage(args.deepspeed)
    precision = "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32"
    return f"DeepSpeed's ZeRO-{stage} in {precision}" if args.deepspeed else f"no DeepSpeed in {precision}"


def check_same_settings(checkpoint: Path, run: RunArguments) -> None:
    """See to it that a run that goes on trains what it trained before, and as it did.

    Raises:
        UserError: `run.json` beside the checkpoint speaks of other parts of the model, another optimizer, or another
            engine.
    """
    record = checkpoint.parent / RUN_RECORD_NAME
    before = read_json(record) if record.is_file() else {}
    for owner, flags, args in (("model", _PARTS_TRAINED, run.model), ("training", _OPTIMIZER, run.training)):
        then = before.get(owner, {})
        for flag in flags:
            now = getattr(args, flag)
            now = str(now.value) if isinstance(now, Enum) else now
            if then.get(flag, now) != now:
                raise UserError(
                    f"{checkpoint}: was trained with --{flag} {then[flag]}, and this run has {now}: give the same "
                    "flags to go on, or another --output_dir"
                )
    model = before.get("model", {})
    if "lora_alpha" in model and _scales(model) != _scales(asdict(run.model)):
        raise UserError(
            f"{checkpoint}: was trained with --lora_alpha {model['lora_alpha']:g}, by which all that was learned is "
            f"scaled, and this run has {run.model.lora_alpha:g}: give the same to go on, or another --output_dir"
        )
    engine = engine_of(run.training)
    if before.get("engine", engine) != engine:
        raise UserError(
            f"{checkpoint}: was trained under {before['engine']}, and this run has {engine}: its optimizer cannot be "
            "read so; give the same --deepspeed, --bf16 and --fp16 to go on, or another --output_dir"
        )


def _scales(model: Mapping[str, Any]) -> list[float]:
    """By what LoRA's updates are scaled, of the language model and of the tower; an alpha of 0 is twice the rank."""
    ranks = [model.get(name, 0) for name in ("use_llm_lora", "use_backbone_lora")]
    return [(model["lora_alpha"] / rank or 2.0) if rank else 0.0 for rank in ranks]


def note_replaced_checkpoints(output_dir: Path, resume_from: Path | None = None) -> None:
    """Mark the checkpoints of a used folder that are not on this run's way, should it be killed and go on.

    Args:
        resume_from: where it goes on; None starts anew.
    """
    folders = sorted(output_dir.glob("checkpoint-*"))
    if resume_from is not None and resume_from.resolve().parent == output_dir.resolve():
        folders = [folder for folder in folders if step_of(folder) > step_of(resume_from)]
    for folder in folders:
        (folder / REPLACED_NAME).touch()
        # The trainer deletes the oldest first, by this time.
        os.utime(folder, (0, 0))
    if folders and resume_from is not None:
        logger.warning(
            "%s holds %s, and this run goes on from %s: it will replace them",
            output_dir,
            ", ".join(folder.name for folder in folders),
            resume_from,
        )
    elif folders:
        logger.warning(
            "%s holds %s of an earlier run: this one starts anew and will replace them; --overwrite_output_dir False "
            "would have gone on from the last one",
            output_dir,
            ", ".join(folder.name for folder in folders),
        )
    elif resume_from is None and is_complete(output_dir):
        logger.warning(
            "%s holds a finished run: this one starts anew and will replace it; --output_dir (--out) another folder "
            "would keep it",
            output_dir,
        )


def remembered(state: TrainerState, callback: ExportableState) -> dict[str, Any]:
    """What a callback's `state` had under "attributes" when the checkpoint was written."""
    # A checkpoint of a run without the callback knows nothing of it, and transformers wants an entry to replace.
    saved = state.stateful_callbacks.setdefault(type(callback).__name__, callback.state())
    return saved["attributes"]


class EarlyStop(EarlyStoppingCallback):
    """Early stopping that counts on where a killed run had come to; one that had stopped stays so."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        self.early_stopping_patience_counter = remembered(state, self)["early_stopping_patience_counter"]
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


class RememberFaults(TrainerCallback, ExportableState):
    """Keeps the samples that could not be used: they count towards `--max_bad_fraction` after a kill, too."""

    def __init__(self, log: FaultLog) -> None:
        self.log = log

    def state(self) -> dict[str, Any]:
        faults = [[fault.sample_id, fault.source, fault.reason] for fault in self.log.faults.values()]
        return {"args": {}, "attributes": {"faults": faults}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.log.remember(SkippedSample(*words) for words in remembered(state, self)["faults"])
