"""What can be chosen on the command line: lists that `--help` shows, and that the code they are about goes by."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

VideoBackend = Literal["pyav", "decord", "torchcodec"]
VIDEO_BACKENDS = get_args(VideoBackend)

# What weights are computed in; `auto` is what suits the device.
Precision = Literal["auto", "bfloat16", "float16", "float32"]
PRECISIONS = get_args(Precision)

# The picture that pixels of boxes were counted in: as players show it, or as it is stored, before it is turned.
COUNTED_IN = ("shown", "stored")

Utility = Literal["CIDEr", "BLEU-4", "mean"]
CONSENSUS_UTILITIES = get_args(Utility)


def _doors(folder: str, frame: str) -> tuple[str, ...]:
    """The modules of a folder by name, but for the one that says what they are."""
    modules = pkgutil.iter_modules([str(Path(__file__).parent / folder)])
    return tuple(module.name for module in modules if module.name != frame)


# The controls are the files of their folder, see data/controls/base.py; so are the tasks, see tasks/benchmark.py.
CONTROLS = _doors("data/controls", "base")
TASKS = _doors("tasks", "benchmark")

# Other projects' data: the files of data/converters, and those that can be written too.
CONVERTERS = tuple(name.replace("_", "-") for name in _doors("data/converters", "forms"))
CONVERTERS_BOTH_WAYS = ("llava", "sharegemini", "videoinstruct", "minicpm-v", "idefics3")

# IntentVCNet's questions by the words of --prompt_form, from what says least about the object to what says most, and
# the controls that each one speaks of.
PROMPT_FORMS: Mapping[str, frozenset[str]] = {
    "text_only": frozenset(),
    "coordinates": frozenset({"coordinates"}),
    "red_box": frozenset({"drawn_box"}),
    "red_box_coordinates": frozenset({"coordinates", "drawn_box"}),
}

# How a judge can be asked about an answer.
JUDGEMENTS = (
    "qa",
    "correctness",
    "detail",
    "context",
    "temporal",
    "consistency",
    "subject",
    "appearance",
    "action",
    "hallucination",
)
