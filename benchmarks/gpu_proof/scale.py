"""The sizes at which the proof is taken: InternVL3-8B's on a GPU, a miniature's in the tests."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from benchmarks.workloads import LORA_DROPOUT, TRAINED, W2, Workload, build_model
from internvl_chat.model.memory.recomputation import Recomputation
from internvl_chat.planning.footprint import Footprint

Row = dict[str, Any]
Measure = Callable[["Scale"], Iterator[Row]]


@dataclass(frozen=True)
class Scale:
    """Geometry, and how much of it is run.

    Args:
        warm_ups, steps: passes before and while a time is taken.
        new_tokens: decoded by each ask.
        prompt_positions: that new tokens attend to where rounding is looked at.
        matrix_rows: of the products that are timed alone.
    """

    workload: Workload
    warm_ups: int
    steps: int
    new_tokens: int
    prompt_positions: int
    matrix_rows: int

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def model(self, **text: int) -> nn.Module:
        """Random weights in bfloat16, made on the device, with LoRA; `text` replaces sizes of the language model."""
        torch.manual_seed(0)
        workload = replace(self.workload, text={**self.workload.text, **text}, recomputation=Recomputation())
        return build_model(workload, str(self.device))

    def footprint(self, config: Any) -> Footprint:
        return Footprint(config, TRAINED, self.workload.num_adapter_layers, LORA_DROPOUT)


FULL = Scale(W2.with_frames(32), warm_ups=2, steps=5, new_tokens=24, prompt_positions=4096, matrix_rows=9600)
_TINY_WORKLOAD = Workload(
    vision={"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    text={
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
    },
    tile_px=56,
    frames=3,
    text_tokens=60,
    captions=2,
    caption_tokens=5,
    num_adapter_layers=2,
    vocab_size=2_000,
)
TINY = Scale(_TINY_WORKLOAD, warm_ups=0, steps=1, new_tokens=4, prompt_positions=64, matrix_rows=48)


def seconds_of(work: Callable[[], Any], scale: Scale) -> float:
    """The median of a few runs, the device's work included."""
    seconds = []
    for _ in range(scale.warm_ups + scale.steps):
        started = time.perf_counter()
        work()
        finish()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[scale.warm_ups :])


def finish() -> None:
    """Wait until the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def free_memory() -> None:
    """Give back what nobody holds, so that the next measure is its own."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
