"""Features of several samples to one batch: side by side to generate from, in one packed row to train on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from internvl_chat.constants import IGNORE_INDEX
from internvl_chat.contracts import Batch, Features, PackedBatch, PackedFeatures, SharedPrefix, SkippedPass


class Collator:
    """Pads the text and concatenates frames and boxes.

    The attention mask follows the lengths, not the ids: a padding token's id can be a real token elsewhere.

    Args:
        padding_side: `right` to train, `left` to generate.
    """

    def __init__(self, pad_token_id: int, padding_side: str = "right") -> None:
        self.pad_token_id = pad_token_id
        self.padding_side = padding_side

    def __call__(self, samples: Sequence[Features]) -> Batch:
        def padded(texts: list[torch.Tensor], value: int) -> torch.Tensor:
            return pad_sequence(texts, batch_first=True, padding_value=value, padding_side=self.padding_side)

        return {
            "input_ids": padded([s["input_ids"] for s in samples], self.pad_token_id),
            "labels": padded([s["labels"] for s in samples], IGNORE_INDEX),
            "attention_mask": padded([torch.ones_like(s["input_ids"]) for s in samples], 0),
            "pixel_values": torch.cat([s["pixel_values"] for s in samples]),
            "boxes": torch.cat([s["boxes"] for s in samples]),
        }


class PackCollator:
    """Puts samples behind one another into a packed row; every tensor gets a batch axis of one, frames and boxes none.

    A row without any picture gets one blank tile, and a row of skipped passes alone one token that counts nothing, so
    that all ranks run the same layers.

    Args:
        image_size_px: side of the blank tile.
    """

    def __init__(self, image_size_px: int) -> None:
        self.image_size_px = image_size_px

    def __call__(self, passes: Sequence[PackedFeatures | SkippedPass]) -> PackedBatch:
        samples = [p for p in passes if not isinstance(p, SkippedPass)] or [_NOTHING]
        offset = 0
        target_positions = []
        for sample in samples:
            target_positions.append(sample["target_positions"] + offset)
            offset += len(sample["input_ids"])
        pixels = [s["pixel_values"] for s in samples if len(s["pixel_values"])]
        boxes = [s["boxes"] for s in samples if len(s["boxes"])]
        return {
            "input_ids": torch.cat([s["input_ids"] for s in samples])[None],
            "position_ids": torch.cat([s["position_ids"] for s in samples])[None],
            "layout": tuple(prefix for s in samples for prefix in s["layout"]),
            "target_positions": torch.cat(target_positions)[None],
            "target_ids": torch.cat([s["target_ids"] for s in samples])[None],
            "loss_weights": torch.cat([s["loss_weights"] for s in samples])[None],
            "pixel_values": torch.cat(pixels) if pixels else torch.zeros(1, 3, self.image_size_px, self.image_size_px),
            "boxes": torch.cat(boxes) if boxes else torch.zeros(1, 4, dtype=torch.int64),
            "skipped": tuple(p for p in passes if isinstance(p, SkippedPass)),
        }


_NOTHING: PackedFeatures = {
    "input_ids": torch.zeros(1, dtype=torch.int64),
    "position_ids": torch.zeros(1, dtype=torch.int64),
    "layout": (SharedPrefix(1),),
    "target_positions": torch.zeros(0, dtype=torch.int64),
    "target_ids": torch.zeros(0, dtype=torch.int64),
    "loss_weights": torch.zeros(0),
    "pixel_values": torch.zeros(0),
    "boxes": torch.zeros(0, 4, dtype=torch.int64),
}
