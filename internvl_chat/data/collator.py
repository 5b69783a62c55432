"""Features of several samples to one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from internvl_chat.constants import IGNORE_INDEX
from internvl_chat.contracts import Batch, Features


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
