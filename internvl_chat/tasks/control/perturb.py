"""Box tracks made worse on purpose: shaken, shrunk, with frames missing, or gone.

Tracks are [T, 4], x1 y1 x2 y2 in thousandths; a frame without a box stays without one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from internvl_chat.boxes import BoxArray, is_absent
from internvl_chat.constants import BOX_SCALE

Perturbation = Callable[[BoxArray, float, np.random.Generator], BoxArray]


def _rounded(corners: np.ndarray, absent: np.ndarray) -> BoxArray:
    """Corners as thousandths inside the picture, each box at least one thousandth wide and high."""
    low = np.clip(np.rint(corners[:, :2]), 0, BOX_SCALE - 1)
    high = np.clip(np.maximum(np.rint(corners[:, 2:]), low + 1), 1, BOX_SCALE)
    boxes = np.concatenate([low, high], axis=1).astype(np.int64)
    boxes[absent] = 0
    return boxes


def jitter(boxes: BoxArray, amount: float, rng: np.random.Generator) -> BoxArray:
    """Move each frame's box by up to `amount` of its own width and height, each frame on its own."""
    size = boxes[:, 2:] - boxes[:, :2]
    shift = rng.uniform(-amount, amount, size.shape) * size
    return _rounded(boxes + np.concatenate([shift, shift], axis=1), is_absent(boxes))


def shrink(boxes: BoxArray, amount: float, _rng: np.random.Generator) -> BoxArray:
    """Take `amount` off each box's width and height, its centre kept; 0 leaves it as it is."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * (1 - amount)
    return _rounded(np.concatenate([centre - half, centre + half], axis=1), is_absent(boxes))


def absent(boxes: BoxArray, amount: float, rng: np.random.Generator) -> BoxArray:
    """Take the boxes of a share `amount` of all frames away; of more frames, the same and others."""
    lost = rng.permutation(len(boxes))[: round(amount * len(boxes))]
    left = boxes.copy()
    left[lost] = 0
    return left


def null(boxes: BoxArray, _amount: float, _rng: np.random.Generator) -> BoxArray:
    """No box in any frame."""
    return np.zeros_like(boxes)


PERTURBATIONS: dict[str, Perturbation] = {"null": null, "jitter": jitter, "shrink": shrink, "absent": absent}


def perturbed(name: str, amount: float, boxes: BoxArray, track_id: str) -> BoxArray:
    """The track after a perturbation; its chance follows from the names alone, the same for every amount."""
    digest = hashlib.sha256(f"{name} {track_id}".encode()).digest()
    return PERTURBATIONS[name](boxes, amount, np.random.default_rng(int.from_bytes(digest[:8], "big")))
