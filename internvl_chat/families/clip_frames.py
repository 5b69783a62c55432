"""Frames as CogVLM2-Video's CLIP is shown them: the shorter side to the tower's, the centre cut out, normalised.

Shape letters: F frames, H and W the picture's pixels, S the tower's side.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# OpenAI's CLIP, to all its digits: the published checkpoint was trained with them.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


def frame_pixels(frames_F3HW: Iterable[torch.Tensor], side_px: int) -> torch.Tensor:
    """F frames [3, H, W] uint8 RGB to [F, 3, S, S] float32, taken one by one.

    Bilinear without antialiasing, the longer side rounded down, as the published model was trained.
    """
    import torch

    return torch.stack([_pixels(frame, side_px) for frame in frames_F3HW])


def _pixels(frame_3HW: torch.Tensor, side_px: int) -> torch.Tensor:
    from torch.nn import functional as nnf
    from torchvision.transforms.v2 import functional as tvf

    shorter = min(frame_3HW.shape[1:])
    size = [int(side / shorter * side_px) if side > shorter else side_px for side in frame_3HW.shape[1:]]
    # The original normalises before it resizes, which is the same but for rounding, on many more pixels.
    resized = nnf.interpolate(frame_3HW[None].float() / 255, size=size, mode="bilinear", align_corners=False)
    return tvf.normalize(tvf.center_crop(resized[0], [side_px, side_px]), list(_MEAN), list(_STD))
