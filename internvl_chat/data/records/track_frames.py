"""Which frames of a track stand for it: a key frame, and a few others of those where the object is to be seen."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

# `cluster` offers more frames than are shown; the model clusters their regions and keeps one a cluster.
FrameChoice = Literal["average", "first", "cluster"]
FRAME_CHOICES: tuple[FrameChoice, ...] = get_args(FrameChoice)
CANDIDATES_PER_SLOT = 2


def key_frame(is_present: npt.NDArray[np.bool_]) -> int | None:
    """The middle one of the frames [F] in which the object is to be seen; None where there is none."""
    seen = np.flatnonzero(is_present)
    return int(seen[len(seen) // 2]) if len(seen) else None


def track_frames(is_present: npt.NDArray[np.bool_], count: int, choice: FrameChoice) -> npt.NDArray[np.intp]:
    """The frames of a track that are offered for `count` slots, ascending.

    Training and prediction choose alike. `average` goes through the whole track in equal steps: Artemis' own step,
    rounded down, leaves out the end of a track that is no multiple of it.

    Args:
        is_present: [F], whether the object is to be seen.
        count: slots; `cluster` offers twice as many frames.
    Returns:
        All frames where the object is to be seen if they are no more than are asked for, none if there are none.
    Raises:
        ValueError: `count` is less than one.
    """
    if count < 1:
        raise ValueError(f"count is {count}: expected at least 1")
    seen = np.flatnonzero(is_present)
    if choice == "first":
        return seen[:count]
    if choice == "cluster":
        count *= CANDIDATES_PER_SLOT
    if len(seen) <= count:
        return seen
    return seen[np.arange(count) * len(seen) // count]
