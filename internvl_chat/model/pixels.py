"""Pixels that travel as bytes and become numbers on the device: a quarter of the memory on the way, the same bits.

Shape letters: T tiles, S a tile's side, K ways to normalise.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from internvl_chat.constants import NORMALISATIONS
from internvl_chat.vision import Vision

_CHANNELS, _LEVELS = 3, 256


@lru_cache
def _normalised_levels(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """[K * 3 * 256]: what a byte stands for, by way and channel. A table has no rounding of its own on any device."""
    with torch.inference_mode(False):
        mean, std = torch.tensor(list(NORMALISATIONS.values())).unbind(1)
        levels = torch.arange(_LEVELS, dtype=torch.float32).div(_LEVELS - 1)
        return ((levels - mean[..., None]) / std[..., None]).flatten().to(device, dtype)


def normalised(vision: Vision, dtype: torch.dtype) -> Vision:
    """What a tower is shown, with `pixel_values` [T, 3, S, S] as `dtype`.

    Where they are bytes, `normalisation` [T] says by its number in `NORMALISATIONS` how a tile is normalised.
    """
    pixels = vision.get("pixel_values")
    if pixels is None or pixels.dtype != torch.uint8:
        return vision
    ways = vision["normalisation"].int()[:, None, None, None] * (_CHANNELS * _LEVELS)
    channels = torch.arange(_CHANNELS, dtype=torch.int32, device=pixels.device)[:, None, None] * _LEVELS
    places = pixels.int().add_(ways).add_(channels)
    shown = _normalised_levels(pixels.device, dtype)[places.flatten()].view(pixels.shape)
    others = {name: tensor for name, tensor in vision.items() if name != "normalisation"}
    return {**others, "pixel_values": shown}
