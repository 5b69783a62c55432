"""Frames to pixel tensors.

Shape letters: F frames, H and W the picture's pixels, S the tile's side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

from internvl_chat.constants import NORMALISATIONS


@dataclass(frozen=True)
class TileTransform:
    """Squash every frame to one square tile and normalise it, as InternVL treats video.

    `size_px` is the tile's side (`--force_image_size`), `normalize_type` a name in `NORMALISATIONS`.
    """

    size_px: int
    normalize_type: str = "imagenet"

    def __call__(self, frames_FHW3: npt.NDArray[np.uint8]) -> torch.Tensor:
        """[F, H, W, 3] uint8 RGB -> [F, 3, S, S] float32, bicubic with antialiasing."""
        frames = torch.from_numpy(np.ascontiguousarray(frames_FHW3)).permute(0, 3, 1, 2)
        tiles = tvf.resize(frames, [self.size_px, self.size_px], InterpolationMode.BICUBIC, antialias=True)
        mean, std = NORMALISATIONS[self.normalize_type]
        return tvf.normalize(tvf.to_dtype(tiles, torch.float32, scale=True), list(mean), list(std))
