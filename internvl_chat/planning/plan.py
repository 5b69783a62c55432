"""A plan for a training run: what fits into the GPUs' memory, and about how long it takes.

Bytes are per GPU. Of what size the numbers are, `Storage` says: under DeepSpeed weights are in half precision, and a
trained one has a gradient and, in fp32, a master copy and two moments of AdamW. ZeRO-1 spreads the latter three over
the GPUs, ZeRO-2 the gradients too, ZeRO-3 all weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from transformers import PreTrainedConfig

from internvl_chat.contracts import UserError
from internvl_chat.model.memory.recomputation import Recomputation
from internvl_chat.model.trainable import TrainablePart
from internvl_chat.planning.cards import GPUS, MEASURED_CARD, Rates
from internvl_chat.planning.footprint import Footprint, PassShape, prompt_tokens
from internvl_chat.planning.inspection import (
    GIB,
    GRADIENT_BYTES,
    OPTIMIZER_BYTES,
    WEIGHT_BYTES,
    parameter_counts,
)
from internvl_chat.planning.seconds import optimizer_seconds, pass_seconds

# The CUDA context with its libraries, and DeepSpeed's buckets of zero_stage3_config.json: that of gradients is there
# twice, since communication overlaps with the backward pass.
WORKSPACE_BYTES = int(1.5 * GIB) + 3 * 50_000_000 * WEIGHT_BYTES
# Weights that ZeRO-3 keeps gathered at a time (`stage3_max_live_parameters`).
LIVE_PARAMETERS = 1_000_000_000
# Of the memory; the rest is lost between blocks.
USABLE_SHARE = 0.95
# A pass of fewer tokens leaves a GPU waiting between kernels: more samples are put into it.
BUSY_TOKENS = 8192
MOST_GPUS = 1024


@dataclass(frozen=True)
class Storage:
    """Bytes of a weight, of a trained one's gradient and optimizer state, and of an activation."""

    weight: int = WEIGHT_BYTES
    gradient: int = GRADIENT_BYTES
    optimizer: int = OPTIMIZER_BYTES
    activation: int = WEIGHT_BYTES


# Half precision under DeepSpeed, which keeps master copies; float32 under it; and without it, where the weights are the
# masters, autocast's float16 copies of them, and float32 alone. Gradients are there twice while ranks add them up.
HALF_PRECISION = Storage()
SINGLE_PRECISION = Storage(4, 4, 12, 4)
AUTOCAST, PLAIN = Storage(4 + 2, 4, 8, 2), Storage(4, 4, 8, 4)


@dataclass(frozen=True)
class Workload:
    """What an epoch holds.

    Args:
        passes: prompts, each with the answers that share it.
        answers: to one prompt.
        answer_tokens: of one answer.
        coordinates: whether the prompt lists a box a frame.
        min_frames, max_frames: shown of a video; memory is planned for the most, time for the mean.
        epochs: how often all is seen.
        batch_size: passes of an optimizer step, over all GPUs.
    """

    passes: int
    answers: int
    answer_tokens: int
    coordinates: bool
    min_frames: int
    max_frames: int
    epochs: float
    batch_size: int


@dataclass(frozen=True)
class Machine:
    """GPUs, the memory of one in bytes, and its kind, a row of `GPUS`."""

    gpus: int
    memory_bytes: int
    kind: str

    @property
    def rates(self) -> Rates:
        """What a GPU of this kind is taken to reach."""
        return Rates.of(GPUS[self.kind])


@dataclass(frozen=True)
class Choices:
    """What a plan may choose, where it is None: samples a pass, what is computed again, and the ZeRO stage."""

    micro_batch: int | None = None
    recomputation: Recomputation | None = None
    zero_stage: int | None = None

    def settings(self, workload: Workload, machine: Machine, tokens: int, layers: int) -> Iterator[Settings]:
        """Every combination that is open, the fastest first: little computed twice, little communication.

        Args:
            layers: of the language model.
        """
        share = max(1, workload.batch_size // machine.gpus)
        wanted = min(share, math.ceil(BUSY_TOKENS / tokens))
        micro_batches = range(wanted, 0, -1) if self.micro_batch is None else [self.micro_batch]
        for again in Recomputation.steps(layers) if self.recomputation is None else [self.recomputation]:
            for stage in [1, 2, 3] if self.zero_stage is None else [self.zero_stage]:
                for micro_batch in micro_batches:
                    yield Settings(workload.max_frames, micro_batch, again, stage)


@dataclass(frozen=True)
class Settings:
    """Settings of a run: most frames of a video, samples of a pass, what is computed again, ZeRO stage."""

    frames: int
    micro_batch: int
    recomputation: Recomputation
    zero_stage: int

    def as_text(self) -> str:
        zero = f"ZeRO-{self.zero_stage}" if self.zero_stage else "no DeepSpeed"
        return f"up to {self.frames} frames, {self.micro_batch} a pass, {self.recomputation.as_text()}, {zero}"


@dataclass(frozen=True)
class RunPlan:
    """A run that fits: its settings, bytes of a GPU, FLOPs and seconds of a pass by part, and its time."""

    settings: Settings
    machine: Machine
    tokens: int
    state_bytes: dict[str, int]
    kept_bytes: dict[str, int]
    passing_bytes: dict[str, int]
    flops: dict[str, float]
    recomputed_flops: float
    pass_seconds: dict[str, float]
    accumulation: int
    steps: int
    seconds_per_step: float

    @property
    def peak_bytes(self) -> int:
        """Of what exists for a moment, only the largest part counts."""
        return sum(self.state_bytes.values()) + sum(self.kept_bytes.values()) + max(self.passing_bytes.values())

    @property
    def hours(self) -> float:
        return self.steps * self.seconds_per_step / 3600

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "peak_bytes": self.peak_bytes, "hours": self.hours}

    def as_text(self) -> str:
        def rows(parts: dict[str, int]) -> list[str]:
            return [f"    {name:<28}{size / GIB:>10.2f}" for name, size in parts.items()]

        total = sum(self.flops.values())
        machine = self.machine
        lines = [
            f"{self.settings.as_text()}, {self.tokens:,} tokens a sample",
            f"GiB a GPU, {self.peak_bytes / GIB:.2f} of {machine.memory_bytes / GIB:.0f}",
            *rows(self.state_bytes),
            "  activations kept from forward to backward",
            *rows(self.kept_bytes),
            "  passing, the largest counts",
            *rows(self.passing_bytes),
            f"TFLOP a pass, {total / 1e12:.1f} and {self.recomputed_flops / 1e12:.1f} computed again",
            *(f"    {name:<28}{value / 1e12:>10.2f}" for name, value in self.flops.items()),
            f"ms a pass, {sum(self.pass_seconds.values()) * 1e3:.0f}, communication between GPUs not counted",
            *(f"    {name:<36}{seconds * 1e3:>10.1f}" for name, seconds in self.pass_seconds.items()),
            f"  {machine.kind}, {'as measured' if machine.kind == MEASURED_CARD else f'scaled from {MEASURED_CARD}'}: "
            f"{machine.rates.as_text()}",
            f"{self.steps:,} steps of {self.accumulation} x {self.settings.micro_batch} x {machine.gpus} samples, "
            f"{self.seconds_per_step:.2f} s each, {self.hours:.2f} h",
        ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Planner:
    footprint: Footprint
    parameters: int
    trained: int
    storage: Storage

    @classmethod
    def of(
        cls,
        config: PreTrainedConfig,
        trained: TrainablePart,
        num_adapter_layers: int,
        lora_dropout: float,
        storage: Storage,
    ) -> _Planner:
        everything, of_it_trained = parameter_counts(config, trained, num_adapter_layers)
        footprint = Footprint(config, trained, num_adapter_layers, lora_dropout, storage.activation)
        return cls(footprint, sum(everything.values()), sum(of_it_trained.values()), storage)

    @property
    def layers(self) -> int:
        """Of the language model."""
        return int(self.footprint.config.text_config.num_hidden_layers)

    def shape(self, workload: Workload, frames: float, samples: int) -> PassShape:
        targets = samples * workload.answers * workload.answer_tokens
        prompt = prompt_tokens(self.footprint.config, math.ceil(frames), workload.coordinates)
        return PassShape(samples * math.ceil(frames), samples * prompt + targets, targets, samples)

    def state_bytes(self, stage: int, gpus: int) -> dict[str, int]:
        def spread(size: int, from_stage: int) -> int:
            return math.ceil(size / gpus) if stage >= from_stage else size

        live = min(LIVE_PARAMETERS, self.parameters) if stage >= 3 and gpus > 1 else 0
        in_buckets = 2 if stage == 0 and gpus > 1 else 1
        return {
            "weights": spread(self.parameters * self.storage.weight, 3),
            "gradients": spread(self.trained * self.storage.gradient * in_buckets, 2),
            "optimizer": spread(self.trained * self.storage.optimizer, 1),
            "weights gathered by ZeRO-3": live * self.storage.weight,
            "workspace": WORKSPACE_BYTES,
        }

    def plan(self, workload: Workload, machine: Machine, settings: Settings) -> RunPlan:
        """The plan for given settings, whether it fits or not."""
        most = self.shape(workload, settings.frames, settings.micro_batch)
        mean = self.shape(workload, (min(workload.min_frames, settings.frames) + settings.frames) / 2, 1)
        seconds = pass_seconds(self.footprint, mean, settings.recomputation, machine.rates)
        passes_a_gpu = max(1, workload.batch_size // machine.gpus)
        # The trainer brings all passes of a step to the device before the first.
        pixels = {"pixels of a step": self.footprint.pixel_bytes(passes_a_gpu * settings.frames)}
        return RunPlan(
            settings,
            machine,
            most.tokens // settings.micro_batch,
            self.state_bytes(settings.zero_stage, machine.gpus) | pixels,
            self.footprint.kept_bytes(most, settings.recomputation),
            self.footprint.passing_bytes(most, settings.recomputation),
            self.footprint.flops(mean),
            self.footprint.recomputed_flops(mean, settings.recomputation),
            seconds,
            accumulation=math.ceil(passes_a_gpu / settings.micro_batch),
            steps=math.ceil(workload.passes * workload.epochs / workload.batch_size),
            seconds_per_step=passes_a_gpu * sum(seconds.values())
            + optimizer_seconds(self.trained, machine.rates) / machine.gpus,
        )

    def best(self, workload: Workload, machine: Machine, choices: Choices) -> RunPlan | None:
        """The fastest plan that fits."""
        tokens = self.shape(workload, workload.max_frames, 1).tokens
        for settings in choices.settings(workload, machine, tokens, self.layers):
            usable = USABLE_SHARE * machine.memory_bytes
            # What lies there whatever passes through rules most of them out.
            if sum(self.state_bytes(settings.zero_stage, machine.gpus).values()) > usable:
                continue
            plan = self.plan(workload, machine, settings)
            if plan.peak_bytes <= usable:
                return plan
        return None

    def smallest_change(self, workload: Workload, machine: Machine, choices: Choices) -> str:
        """What to change so that it fits: a setting, else the frames, else the machine."""
        everything = Recomputation.of_layers(self.layers)
        for words, wider in (
            ("all layers computed again", replace(choices, recomputation=everything)),
            ("1 sample a pass", replace(choices, micro_batch=1)),
            ("ZeRO-3", replace(choices, zero_stage=3)),
            ("all layers computed again, 1 sample a pass and ZeRO-3", Choices(1, everything, 3)),
        ):
            if wider != choices and self.best(workload, machine, wider):
                return words
        for frames in range(workload.max_frames - 1, 0, -1):
            fewer = replace(workload, max_frames=frames, min_frames=min(frames, workload.min_frames))
            if self.best(fewer, machine, choices):
                return f"at most {frames} frames"
        for gpus in range(machine.gpus + 1, MOST_GPUS + 1):
            found = self.best(workload, replace(machine, gpus=gpus), Choices())
            if found:
                return f"{gpus} GPUs of this memory ({found.settings.as_text()})"
        smallest = self.plan(workload, machine, Settings(workload.max_frames, 1, everything, 3))
        return f"GPUs of {math.ceil(smallest.peak_bytes / USABLE_SHARE / GIB)} GiB"


def plan_as_set(
    config: PreTrainedConfig,
    trained: TrainablePart,
    num_adapter_layers: int,
    workload: Workload,
    machine: Machine,
    settings: Settings,
    *,
    lora_dropout: float = 0.05,
    storage: Storage = HALF_PRECISION,
) -> RunPlan:
    """The plan of a run whose settings are given, whether it fits or not."""
    return _Planner.of(config, trained, num_adapter_layers, lora_dropout, storage).plan(workload, machine, settings)


def plan_run(
    config: PreTrainedConfig,
    trained: TrainablePart,
    num_adapter_layers: int,
    workload: Workload,
    machine: Machine,
    choices: Choices | None = None,
    *,
    lora_dropout: float = 0.05,
    storage: Storage = HALF_PRECISION,
) -> RunPlan:
    """Choose what is open so that the run fits and is fast.

    Args:
        storage: in which precision, and under what, it trains; the time is that of half precision whatever it is.
    Raises:
        UserError: nothing that is open fits; the message names the smallest change that would.
    """
    choices = choices or Choices()
    planner = _Planner.of(config, trained, num_adapter_layers, lora_dropout, storage)
    plan = planner.best(workload, machine, choices)
    if plan is None:
        tokens = planner.shape(workload, workload.max_frames, 1).tokens
        *_, thriftiest = choices.settings(workload, machine, tokens, planner.layers)
        needed = planner.plan(workload, machine, thriftiest)
        change = planner.smallest_change(workload, machine, choices)
        if storage != HALF_PRECISION:
            footprint = replace(planner.footprint, element_bytes=HALF_PRECISION.activation)
            half = replace(planner, storage=HALF_PRECISION, footprint=footprint)
            found = half.best(workload, machine, replace(choices, zero_stage=None))
            change = f"--bf16 True under DeepSpeed ({found.settings.as_text()})" if found else change
        raise UserError(
            f"the run does not fit: {thriftiest.as_text()} needs {needed.peak_bytes / GIB:.1f} GiB on each of "
            f"{machine.gpus} GPUs, expected at most {USABLE_SHARE:.0%} of {machine.memory_bytes / GIB:.0f} GiB; "
            f"it would fit with {change}"
        )
    return plan
