"""Inputs for the tiny model."""

from __future__ import annotations

from typing import Any

import torch

from tests.helpers import IMAGE_TOKEN_ID, TILE_PX, TOKENS_PER_FRAME

F = 3
BOXES = torch.tensor([[105, 230, 870, 940], [0, 0, 0, 0], [400, 333, 1000, 670]])
OTHER_BOXES = torch.tensor([[0, 0, 300, 300], [0, 0, 0, 0], [100, 0, 500, 1000]])
ALL_ABSENT = torch.zeros(F, 4, dtype=torch.long)


def inputs_of(
    num_frames: int = F, tile_px: int = TILE_PX, tokens_per_frame: int = TOKENS_PER_FRAME, seed: int = 0
) -> dict[str, Any]:
    """One prompt with its frames: some text, the frames' places, some more text."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(20, 60, (1, 5 + seed), generator=generator)
    places = torch.full((1, num_frames * tokens_per_frame), IMAGE_TOKEN_ID)
    ids = torch.cat([text[:, :2], places, text[:, 2:]], dim=1)
    pixels = torch.randn(num_frames, 3, tile_px, tile_px, generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "vision": {"pixel_values": pixels}}


def plain_inputs(**sizes: int) -> dict[str, Any]:
    """The same under the names that transformers' own InternVL has."""
    inputs = inputs_of(**sizes)
    return {**inputs.pop("vision"), **inputs}


def boxed(inputs: dict[str, Any], boxes: torch.Tensor) -> dict[str, Any]:
    """The inputs with boxes in the frames."""
    return {**inputs, "vision": {**inputs["vision"], "boxes": boxes}}
