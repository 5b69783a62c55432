"""CogVLM2-Video's way with a sample: its pixels, its prompt.

Shape letters: F frames, H and W the picture's pixels.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as nnf
from torchvision.transforms.v2 import functional as tvf

# OpenAI's CLIP, to all its digits: the published checkpoint was trained with them.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def frame_pixels(frames_FHW3: Iterable[npt.NDArray[np.uint8]], side_px: int) -> torch.Tensor:
    """F frames [H, W, 3] uint8 RGB to [F, 3, side, side] float32: shorter side to `side_px`, centre cut out.

    Bilinear without antialiasing, as the published model was trained; frames are taken one by one.
    """
    return torch.stack([_pixels(frame, side_px) for frame in frames_FHW3])


def _pixels(frame_HW3: npt.NDArray[np.uint8], side_px: int) -> torch.Tensor:
    frame = torch.from_numpy(np.ascontiguousarray(frame_HW3)).permute(2, 0, 1).float().div_(255)
    height, width = frame.shape[1:]
    shorter = min(height, width)
    size = [int(side / shorter * side_px) if side > shorter else side_px for side in (height, width)]
    resized = nnf.interpolate(frame[None], size=size, mode="bilinear", align_corners=False)
    # The original normalises before it resizes, which is the same but for rounding, on many more pixels.
    return tvf.normalize(tvf.center_crop(resized[0], [side_px, side_px]), list(CLIP_MEAN), list(CLIP_STD))
