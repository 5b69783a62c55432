"""The planner asked about a run that is about to start: its workload, its machine, and whether it fits."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import PreTrainedConfig

from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.model.memory.recomputation import Recomputation
from internvl_chat.model.trainable import TrainablePart
from internvl_chat.planning.cards import GPUS, kind_of
from internvl_chat.planning.footprint import Footprint, PassShape, prompt_tokens
from internvl_chat.planning.plan import (
    AUTOCAST,
    HALF_PRECISION,
    PLAIN,
    SINGLE_PRECISION,
    Choices,
    Machine,
    Storage,
    Workload,
    plan_run,
)
from internvl_chat.train.arguments import FinetuneArguments, RunArguments

logger = logging.getLogger("internvl_chat.train")

# About how many tokens of a language model an English word takes, and the marks around an answer. Digits, punctuation
# and the tags of boxes take one each.
_TOKENS_A_WORD, _ANSWER_MARKS = 1.4, 2
_WORD = re.compile(r"[^\W\d_]+")
_OTHER_TOKEN = re.compile(r"</?(?:ref|box)>|\d|[^\w\s]")
# Stands for a GPU that is not in the table: the time of a plan is of no interest here.
_ANY_KIND = "h100"


@dataclass(frozen=True)
class ShownAmounts:
    """What is shown of a sample: frames of a video, tiles of an image; several images share `max_tiles`.

    An image that is not cut has one tile, and `thumbnail` adds one to an image that is.
    """

    min_frames: int
    max_frames: int
    max_tiles: int = 1
    thumbnail: bool = False

    @classmethod
    def of(cls, config: PromptConfig) -> ShownAmounts:
        """As the training script's flags say."""
        extra = sum(control.most_views for control in config.controls)
        frames = (config.min_num_frame + extra, config.max_num_frame + extra)
        return cls(*frames, config.max_dynamic_patch if config.dynamic_image_size else 1, config.use_thumbnail)

    def tiles(self, sample: Sample) -> tuple[int, int]:
        """The fewest and the most tiles of a sample; a frame is one, and so is what stands for no picture at all."""
        if sample.video_path is not None:
            return self.min_frames, self.max_frames
        images = max(1, len(sample.image_paths))
        each = max(1, self.max_tiles // images)
        return images, images * (each + (self.thumbnail and each > 1))


def text_tokens(text: str) -> int:
    """About how many tokens a language model takes for a text, boxes in it or not."""
    rest = _OTHER_TOKEN.sub(" ", text)
    return round(_TOKENS_A_WORD * len(_WORD.findall(rest))) + len(_OTHER_TOKEN.findall(text))


def workload_of(passes: Sequence[Sequence[Sample]], *, shown: ShownAmounts, epochs: float, batch_size: int) -> Workload:
    """What an epoch of these passes holds."""
    samples = [sample for group in passes for sample in group]
    fewest, most = zip(*map(shown.tiles, samples), strict=True)
    return Workload(
        passes=len(passes),
        answers=max(map(len, passes)),
        answer_tokens=round(sum(text_tokens(s.turns[-1].text) for s in samples) / len(samples)) + _ANSWER_MARKS,
        coordinates=any("coordinates" in turn.controls for turn in samples[0].turns),
        min_frames=min(fewest),
        max_frames=max(most),
        epochs=epochs,
        batch_size=batch_size,
    )


def zero_stage(deepspeed: str | dict[str, Any] | None) -> int:
    """The ZeRO stage of a DeepSpeed configuration; 0 without one."""
    return int(_zero_settings(deepspeed).get("stage", 0))


def storage_of(args: FinetuneArguments) -> Storage:
    """Of what size the numbers of a run are."""
    if args.deepspeed:
        return HALF_PRECISION if args.bf16 or args.fp16 else SINGLE_PRECISION
    return AUTOCAST if args.fp16 else PLAIN


def offloads(deepspeed: str | dict[str, Any] | None) -> bool:
    """Whether a DeepSpeed configuration keeps weights or the optimizer outside the GPU."""
    parts = (_zero_settings(deepspeed).get(f"offload_{part}") or {} for part in ("optimizer", "param"))
    return any(part.get("device", "none") != "none" for part in parts)


def _zero_settings(deepspeed: str | dict[str, Any] | None) -> dict[str, Any]:
    if not deepspeed:
        return {}
    settings = deepspeed if isinstance(deepspeed, dict) else json.loads(Path(deepspeed).read_text(encoding="utf-8"))
    return dict(settings.get("zero_optimization", {}))


def gpu_kind() -> str | None:
    """The kind of this process's GPU, where the table has it."""
    return kind_of(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


def peak_flops() -> float | None:
    """The dense bfloat16 peak of this process's GPU, where the table has it."""
    kind = gpu_kind()
    return GPUS[kind].peak_flops if kind else None


def memory_bytes() -> int:
    """Memory of this process's GPU; on a CPU this rank's share of the machine's."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return psutil.virtual_memory().total // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def tile_cost(footprint: Footprint) -> float:
    """What a tile costs in the ViT, in tokens of the language model."""
    tile, token = (sum(footprint.flops(shape).values()) for shape in (PassShape(1, 0, 0), PassShape(0, 1, 0)))
    return tile / token


def recomputation_asked_for(flag: str, layers: int) -> Recomputation | None:
    """What `--grad_checkpoint` asks for of a language model with so many layers; None where it is to be chosen.

    Raises:
        UserError: it is no such value.
    """
    words = {"True": Recomputation.of_layers(layers), "False": Recomputation(), "auto": None}
    words |= {"cheap": Recomputation(cheap=True)}
    if flag in words:
        return words[flag]
    if not flag.isdecimal() or int(flag) > layers:
        raise UserError(
            f"--grad_checkpoint {flag}: expected auto, False, cheap, True, or a number of layers up to {layers}"
        )
    return Recomputation.of_layers(int(flag))


def settle_recomputation(
    run: RunArguments,
    prompt_config: PromptConfig,
    config: PreTrainedConfig,
    trained: TrainablePart,
    passes: Sequence[Sequence[Sample]],
) -> Recomputation:
    """What is computed again in backward: as the flag says, or as the planner finds needed.

    Raises:
        UserError: on a GPU, with `auto`, the run cannot fit; the message names the smallest change that would make it.
            What was asked for by number is an estimate against a user's word: it warns.
    """
    model_args, args = run.model, run.training
    layers = config.text_config.num_hidden_layers
    wanted = recomputation_asked_for(model_args.grad_checkpoint, layers)
    per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    workload = workload_of(
        passes,
        shown=ShownAmounts.of(prompt_config),
        epochs=math.ceil(args.num_train_epochs),
        batch_size=per_step,
    )
    samples_a_pass = args.per_device_train_batch_size
    if run.data.max_packed_tokens:
        prompt = prompt_tokens(config, workload.max_frames, workload.coordinates)
        longest = prompt + workload.answers * workload.answer_tokens
        samples_a_pass = max(1, math.ceil(run.data.max_packed_tokens / longest))
    machine = Machine(args.world_size, memory_bytes(), gpu_kind() or _ANY_KIND)
    stage = zero_stage(args.deepspeed)
    planned = partial(
        plan_run,
        config,
        trained,
        model_args.num_adapter_layers,
        workload,
        machine,
        lora_dropout=model_args.lora_dropout,
        storage=storage_of(args),
    )
    try:
        plan = planned(Choices(samples_a_pass, wanted, stage))
    except UserError as error:
        # The estimate is of GPUs that hold everything; what is short of memory, or offloads, does best to save it.
        if not torch.cuda.is_available() or offloads(args.deepspeed):
            return Recomputation.of_layers(layers) if wanted is None else wanted
        if wanted is None:
            raise
        logger.warning("%s. Going on, since --grad_checkpoint %s was asked for", error, model_args.grad_checkpoint)
        return wanted
    again = plan.settings.recomputation
    if stage and args.world_size > 1 and torch.cuda.is_available() and not offloads(args.deepspeed):
        # The stage is the user's word, since checkpoints go on under their own alone; one that costs less is named.
        least = planned(Choices(samples_a_pass, again)).settings.zero_stage
        if least < stage:
            logger.info(
                "ZeRO-%d fits, too, and sends less between GPUs than ZeRO-%d: --deepspeed %s",
                least,
                stage,
                f"shell/deepspeed/zero_stage{least}_config.json",
            )
    return again
