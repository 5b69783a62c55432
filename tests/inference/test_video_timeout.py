"""A video that takes too long is given up; the others, before and behind it, are not."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from internvl_chat.inference.requests import Ask, EncodedClip, Unreadable, decoded_ahead

pytestmark = pytest.mark.process
NAMES = ("a", "b", "slow", "c", "d")


class Pictures:
    """Whose pictures of `slow` come late."""

    def pixels(self, sample: str, plan: Any) -> dict[str, torch.Tensor]:
        time.sleep(2.5 if sample == "slow" else 0)
        return {"pixel_values": torch.full((1,), float(NAMES.index(sample)))}


@dataclass
class View:
    encoder: Pictures = field(default_factory=Pictures)

    def plan(self, sample: str) -> Any:
        return SimpleNamespace(input_ids=[NAMES.index(sample)], tensors={})


def test_only_the_slow_video_is_given_up() -> None:
    asks: Any = [(Ask(name, (name,)),) for name in NAMES]  # type: ignore[arg-type]
    views: Any = [View()]
    batches = [asks[:2], asks[2:4], asks[4:]]
    decoded = list(decoded_ahead(batches, views, num_workers=0, timeout_s=1.0))
    assert [len(batch) for batch in decoded] == [2, 2, 1]
    clips = [clip for batch in decoded for clip in batch]
    assert [clip.ids for clip in clips] == [(name,) for name in NAMES]
    assert clips[2] == Unreadable(("slow",), "was not decoded within 1 s")
    shown = [clip.views[0].vision["pixel_values"].item() for clip in clips if isinstance(clip, EncodedClip)]
    assert shown == [0, 1, 3, 4]
