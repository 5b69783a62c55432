"""Frames to pixel tensors, and compression as augmentation.

Shape letters: F frames, H and W the picture's pixels, S the tile's side.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

from internvl_chat.constants import NORMALISATIONS

# The qualities that InternVL's training draws from, both inclusive.
JPEG_QUALITIES = (75, 100)


@dataclass(frozen=True)
class TileTransform:
    """Squash every frame to one square tile and normalise it, as InternVL treats video.

    `size_px` is the tile's side (`--force_image_size`), `normalize_type` a name in `NORMALISATIONS`.
    """

    size_px: int
    normalize_type: str = "imagenet"

    def __call__(self, frames_FHW3: Iterable[npt.NDArray[np.uint8]]) -> torch.Tensor:
        """F frames [H, W, 3] uint8 RGB -> [F, 3, S, S] float32, bicubic with antialiasing."""
        return normalise(self.tiles(frames_FHW3), self.normalize_type)

    def tiles(self, frames_FHW3: Iterable[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
        """F frames [H, W, 3] uint8 RGB -> [F, S, S, 3] uint8, not normalised; frames are taken one by one."""
        return np.stack([self._resized(frame) for frame in frames_FHW3])

    def _resized(self, frame_HW3: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        # torchvision's uint8 kernel; of its values 1 in 200 differs from PIL's by a level (benchmarks/NOTES.md).
        frame = torch.from_numpy(np.require(frame_HW3, requirements=["C", "W"])).permute(2, 0, 1)[None]
        tile = tvf.resize(frame, [self.size_px, self.size_px], InterpolationMode.BICUBIC, antialias=True)
        return tile[0].permute(1, 2, 0).numpy()


def normalise(tiles_FHW3: npt.NDArray[np.uint8], normalize_type: str = "imagenet") -> torch.Tensor:
    """[F, H, W, 3] uint8 -> [F, 3, H, W] float32, less the mean, in units of the standard deviation.

    A value can only be one of 256: torchvision's arithmetic makes a table of 3 x 256, in which the tiles are looked up.
    """
    mean, std = NORMALISATIONS[normalize_type]
    levels = torch.arange(256, dtype=torch.float32).div(255).expand(3, 1, 256)
    table = tvf.normalize(levels, list(mean), list(std))[:, 0].numpy()
    num_frames, height_px, width_px = tiles_FHW3.shape[:3]
    pixels = np.empty((num_frames, 3, height_px, width_px), np.float32)
    for tile, planes in zip(tiles_FHW3, pixels, strict=True):
        for channel in range(3):
            np.take(table[channel], tile[..., channel], out=planes[channel], mode="clip")
    return torch.from_numpy(pixels)


def recompressed(picture_HW3: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """The picture as JPEG of this quality keeps it."""
    buffer = BytesIO()
    Image.fromarray(picture_HW3).save(buffer, format="JPEG", quality=quality)
    with Image.open(buffer) as image:
        return np.array(image.convert("RGB"))
