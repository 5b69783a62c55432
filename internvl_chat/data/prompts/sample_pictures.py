"""The pictures of a sample as a family reads them: all at once, or a video file's frames resized through the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from internvl_chat.data.media.sources import Pictures

Picture = npt.NDArray[np.uint8]
# Pictures [H, W, 3] to equal tiles [F, S, S, 3].
Resize = Callable[[Iterable[Picture]], npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class SamplePictures:
    """What a sample shows; nothing is decoded before it is asked for.

    Args:
        read: all F pictures [H, W, 3], with boxes drawn in and compressed.
        frame_tiles: of a video file whose frames are shown whole, one tile each: its frames [F, S, S, 3], made by what
            is given, or found where they are kept. None for anything else.
        features: features [N, C] that stand for its video, for a family that reads them; None where there are none.
    """

    read: Callable[[], Pictures]
    frame_tiles: Callable[[Resize], npt.NDArray[np.uint8]] | None = None
    features: Callable[[], npt.NDArray[np.float32]] | None = None
