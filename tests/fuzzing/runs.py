"""Many broken files: by a seed each, and as Hypothesis draws them."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, given, settings

from tests.fuzzing.garden import CLIP, FuzzFailure, Garden
from tests.fuzzing.mutations import annotation_lines, box_arrays, box_texts, foreign_files, meta_files, mutated
from tests.fuzzing.seedbed import chats, coco
from tests.fuzzing.truth import TruthFailure, try_good_record

_BOXES = CLIP.rsplit("/", 1)[0] + "/object_bboxes"


def run_bytes(garden: Garden, first: int, count: int, started: Callable[[str], Any] = str) -> None:
    """Try the mutations of the seeds from `first`; `started` is told of each before it runs."""
    for seed in range(first, first + count):
        rng = random.Random(seed)
        name = rng.choice(garden.mutable)
        content = mutated(garden.original(name), rng)
        started(f"--first {seed} --count 1")
        try:
            garden.try_out(name, content)
        except FuzzFailure as error:
            raise FuzzFailure(f"--first {seed} --count 1: {error}") from error


def run_good(garden: Garden, first: int, count: int) -> None:
    """Follow so many good records, from the seed `first`, to the model's door: boxes lie on their objects."""
    for seed in range(first, first + count):
        with tempfile.TemporaryDirectory(dir=garden.folder.parent) as folder:
            try:
                try_good_record(seed, Path(folder), garden.tokenizer)
            except TruthFailure as error:
                raise FuzzFailure(str(error)) from error


def run_drawn(garden: Garden, seed: int, count: int) -> None:
    """Try about `count` documents of each kind that Hypothesis draws; a failing one is made small."""
    kinds: dict[str, Any] = {
        "lines.jsonl": annotation_lines(),
        "meta.json": meta_files(str(garden.folder)),
        f"{_BOXES}.txt": box_texts,
        f"{_BOXES}.npy": box_arrays(),
        "root/chats.json": foreign_files(chats()),
        "root/coco.json": foreign_files(coco()),
    }
    quiet = settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    for name, strategy in kinds.items():
        hypothesis.seed(seed)(quiet(given(content=strategy)(_trial(garden, name))))()


def _trial(garden: Garden, name: str) -> Callable[[bytes], None]:
    def try_out(content: bytes) -> None:
        garden.try_out(name, content)

    return try_out
