"""Features to a batch."""

from __future__ import annotations

import torch

from internvl_chat.constants import IGNORE_INDEX
from internvl_chat.contracts import Batch, Features
from internvl_chat.data.training_set.collator import Collator

PAD = 9


def features(ids: list[int], num_frames: int) -> Features:
    return {
        "input_ids": torch.tensor(ids),
        "labels": torch.tensor([IGNORE_INDEX, *ids[1:]]),
        "pixel_values": torch.full((num_frames, 3, 2, 2), float(len(ids))),
        "boxes": torch.full((num_frames, 4), len(ids)),
    }


def batch(padding_side: str) -> Batch:
    return Collator(PAD, padding_side)([features([5, PAD, 7], 2), features([4, 3, PAD, PAD, 6], 3)])


def test_the_mask_follows_the_length_even_where_a_real_token_is_the_pad_token() -> None:
    result = batch("right")
    assert result["input_ids"].tolist() == [[5, PAD, 7, PAD, PAD], [4, 3, PAD, PAD, 6]]
    assert result["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert result["labels"].tolist() == [
        [IGNORE_INDEX, PAD, 7, IGNORE_INDEX, IGNORE_INDEX],
        [IGNORE_INDEX, 3, PAD, PAD, 6],
    ]


def test_prompts_are_padded_on_the_left() -> None:
    result = batch("left")
    assert result["input_ids"].tolist() == [[PAD, PAD, 5, PAD, 7], [4, 3, PAD, PAD, 6]]
    assert result["attention_mask"].tolist() == [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert result["labels"][0].tolist() == [IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX, PAD, 7]


def test_frames_and_boxes_follow_each_other_in_the_order_of_the_samples() -> None:
    result = batch("right")
    assert result["pixel_values"].shape == (5, 3, 2, 2)
    assert result["pixel_values"][:, 0, 0, 0].tolist() == result["boxes"][:, 3].tolist() == [3, 3, 5, 5, 5]
