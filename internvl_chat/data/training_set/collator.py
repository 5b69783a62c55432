"""Passes to one packed row that a training step takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from internvl_chat.contracts import PackedBatch, PackedFeatures, SharedPrefix, SkippedPass
from internvl_chat.vision import Vision, joined


class PackCollator:
    """Puts samples behind one another into a packed row; every text tensor gets a batch axis of one, vision none.

    A row without any picture gets a blank, and a row of skipped passes, or of none, one token that counts nothing, so
    that all ranks run the same layers.

    Args:
        blank: what is shown in place of pictures, see `DataHalf.blank`.
    """

    def __init__(self, blank: Vision) -> None:
        self.blank = blank

    def __call__(self, passes: Sequence[PackedFeatures | SkippedPass | None]) -> PackedBatch:
        samples = [p for p in passes if p is not None and not isinstance(p, SkippedPass)] or [_NOTHING]
        offset = 0
        target_positions = []
        for sample in samples:
            target_positions.append(sample["target_positions"] + offset)
            offset += len(sample["input_ids"])
        return {
            "input_ids": torch.cat([s["input_ids"] for s in samples])[None],
            "position_ids": torch.cat([s["position_ids"] for s in samples])[None],
            "layout": tuple(prefix for s in samples for prefix in s["layout"]),
            "target_positions": torch.cat(target_positions)[None],
            "target_ids": torch.cat([s["target_ids"] for s in samples])[None],
            "loss_weights": torch.cat([s["loss_weights"] for s in samples])[None],
            "vision": joined(s["vision"] for s in samples) or self.blank,
            "skipped": tuple(p for p in passes if isinstance(p, SkippedPass)),
        }


_NOTHING: PackedFeatures = {
    "input_ids": torch.zeros(1, dtype=torch.int64),
    "position_ids": torch.zeros(1, dtype=torch.int64),
    "layout": (SharedPrefix(1),),
    "target_positions": torch.zeros(0, dtype=torch.int64),
    "target_ids": torch.zeros(0, dtype=torch.int64),
    "loss_weights": torch.zeros(0),
    "vision": {},
}
