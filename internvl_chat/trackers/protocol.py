"""What every tracker is: objects go in with a box on some frame, and come out of each later one with a box.

Shape letters: N objects, H and W a frame's pixels. Boxes are x y w h in pixels; one without area says "not there".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]
BoxPx = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sighting:
    """Where the objects are on one frame.

    Args:
        boxes_px: [N, 4] x y w h; zeros for an object that the tracker has lost, or was never given.
        confidence: [N] from 0 to 1, how sure the tracker is that this is the object.
    """

    boxes_px: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64]


class Tracker(Protocol):
    """Follows N objects through neighbouring frames, in either direction of time.

    What it keeps must not grow with the number of frames.
    """

    def step(self, frame: Frame, given: Mapping[int, BoxPx]) -> Sighting:
        """Take the next frame.

        Args:
            frame: [H, W, 3] uint8 RGB, of the same size as all frames before.
            given: object number -> its box [4] on this frame, with area and inside the picture: where an object
                begins, or is corrected.
        Raises:
            UserError: a box that this tracker cannot start from.
        """
        ...


# N -> a tracker that has seen nothing yet.
TrackerFactory = Callable[[int], Tracker]
