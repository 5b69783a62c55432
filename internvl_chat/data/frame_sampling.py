"""Which frames of a video are shown to the model."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

FrameSampling = Literal["rand", "middle", "centre"]


def _segments(num_frames: int, video_length: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First and last frame of each of `min(num_frames, video_length)` equal segments, both inclusive."""
    bounds = np.linspace(0, video_length, min(num_frames, video_length) + 1).astype(np.int64)
    return bounds[:-1], bounds[1:] - 1


def _padded(indices: npt.NDArray[np.int64], num_frames: int) -> npt.NDArray[np.int64]:
    """Repeat the last frame of a video that is too short."""
    return np.concatenate([indices, np.full(num_frames - len(indices), indices[-1])])


def sample_frames(
    num_frames: int, video_length: int, method: FrameSampling, rng: np.random.Generator | None = None
) -> npt.NDArray[np.int64]:
    """Indices of `num_frames` frames, ascending.

    Args:
        method: `rand` draws one frame from each equal segment, `middle` takes its middle (both as InternVL trains;
            a shorter video repeats its last frame), `centre` takes segment centres as InternVL's evaluation does.
        rng: what `rand` draws from.
    Returns:
        [F] int64, each in 0 to `video_length - 1`.
    Raises:
        ValueError: no frames asked for or none there, an unknown method, or `rand` without `rng`.
    """
    if num_frames < 1 or video_length < 1:
        raise ValueError(f"cannot take {num_frames} frames from a video of {video_length}")
    if method == "centre":
        segment = (video_length - 1) / num_frames
        return (segment / 2 + np.round(segment * np.arange(num_frames))).astype(np.int64)
    first, last = _segments(num_frames, video_length)
    if method == "middle":
        return _padded((first + last) // 2, num_frames)
    if method == "rand":
        if rng is None:
            raise ValueError("method 'rand' needs a random generator")
        return _padded(rng.integers(first, last, endpoint=True), num_frames)
    raise ValueError(f"unknown sampling method {method!r}: expected 'rand', 'middle' or 'centre'")
