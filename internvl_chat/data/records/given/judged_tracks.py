"""Tracks that somebody hands over one by one, judged as `check` judges a dataset's: nobody else looks at them.

Shape letter: K rows of a track.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from internvl_chat.contracts import TrackRows, UserError
from internvl_chat.data.records.given.given_boxes import FULL_SIDE, check_order, check_unit
from internvl_chat.data.records.reader import read_tracks

# Detectors miss a frame here and there; below this share of frames with a box, key frames are as likely.
_FEWEST_COVERED = 0.5


def read_judged_tracks(
    record: Mapping[str, Any], of_images: bool, source: str, shown: Collection[int] = ()
) -> tuple[TrackRows, ...]:
    """The `tracks` of a record, as `read_tracks` reads them.

    Args:
        shown: the frames that matter, where they are chosen already.
    Raises:
        UserError: as there; or boxes run backwards, or are in another unit than is said; or most frames have no box,
            and it is not said what is there.
    """
    tracks = read_tracks(record, of_images, source)
    for number, (given, track) in enumerate(zip(record["tracks"], tracks, strict=True), start=1):
        corners = track.corners * FULL_SIDE.get(given["unit"], 1)
        try:
            check_order(corners, given["order"])
            check_unit(corners, given["unit"])
            if "interpolate" not in given and not of_images:
                _check_coverage(track, shown)
        except UserError as error:
            raise UserError(f"{source}: track {number}: {error}") from error
    return tracks


def few_of_span(positions: npt.NDArray[np.float64], absent: Collection[int] = ()) -> tuple[int, int] | None:
    """At how many of how many frames or seconds something is said, where these are few enough to be key frames.

    Args:
        positions: [K] frame numbers or seconds that have a box.
        absent: frames that are said to have none.
    Returns:
        None where what is between the boxes is no question.
    """
    first, last = float(positions.min()), float(positions.max())
    said = set(positions.tolist()) | {float(frame) for frame in absent if first <= frame <= last}
    span = int(last - first) + 1
    return (len(said), span) if len(said) < span * _FEWEST_COVERED else None


def _check_coverage(track: TrackRows, shown: Collection[int]) -> None:
    few = few_of_span(track.positions, track.absent if track.by == "frame" else ())
    if few is None or track.is_complete or (track.by == "frame" and shown and set(shown) <= set(track.positions)):
        return
    raise UserError(
        f"{track.name!r} has a box at {few[0]} of the {few[1]} {track.by}s from {track.positions[0]:g} to "
        f"{track.positions[-1]:g}: say by 'interpolate' whether they are key frames (true) or the object is absent "
        "from the others (false)"
    )
