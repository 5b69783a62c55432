"""Tracks as a person or a program hands them over: a file, an array, frames with boxes, or one box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from internvl_chat.contracts import Track, TrackFile, TrackRows, UserError
from internvl_chat.data.records.given_boxes import FULL_SIDE, check_order, check_unit, track_of_box
from internvl_chat.data.records.names import DEFAULT_NAME
from internvl_chat.data.records.reader import read_tracks
from internvl_chat.data.records.track_files import tracks_of_file

# A file; an array [T, 4]; {frame: box}; the record's own form of a track; one box; or what the readers make of these.
GivenTrack = Any
_SOURCE = "the track"


def as_tracks(
    given: GivenTrack,
    *,
    name: str = DEFAULT_NAME,
    unit: str = "thousandths",
    order: str = "xyxy",
    is_for_images: bool = False,
) -> tuple[Track, ...]:
    """The tracks in whatever form they are given.

    Args:
        given: the path of a `.npy`, `.txt` or `.json` file; [T, 4] numbers, a box a frame; {frame: box}; a track, or
            a list of tracks, in the form of a record (`{"name": ..., "boxes": ..., "unit": ..., "order": ...}`); four
            numbers, one box for every frame.
        name: how the prompt calls the object, where the form has no name of its own.
        unit: of arrays, frames and boxes: `thousandths`, `pixels` or `unit` (0 to 1). Files have a unit of their own.
        order: of their numbers, `xyxy` or `xywh`.
    Raises:
        UserError: it is none of these, or not in the unit and order that are said.
    """
    if isinstance(given, TrackFile | TrackRows):
        return (given,)
    if isinstance(given, str | Path):
        return tracks_of_file(Path(given), name)
    if isinstance(given, Mapping) and "boxes" in given:
        return _read(dict(given), is_for_images)
    if isinstance(given, list | tuple) and given and isinstance(given[0], Mapping | TrackFile | TrackRows):
        return tuple(track for one in given for track in as_tracks(one, name=name, is_for_images=is_for_images))
    if isinstance(given, Mapping):
        boxes: Any = {str(frame): _numbers(box) for frame, box in given.items()}
        return _read({"name": name, "boxes": boxes, "unit": unit, "order": order}, is_for_images)
    rows = _rows(given)
    if rows.ndim == 1:
        one = {"name": name, "boxes": [rows.tolist()], "unit": unit, "order": order}
        read_tracks({"tracks": [one]}, True, _SOURCE)
        return (track_of_box(rows.tolist(), name, unit, order),)
    return _read({"name": name, "boxes": rows.tolist(), "unit": unit, "order": order}, is_for_images)


def _read(fields: dict[str, Any], is_for_images: bool) -> tuple[TrackRows, ...]:
    """A track in a record's form, judged as one that a person wrote."""
    tracks = read_tracks({"tracks": [fields]}, is_for_images, _SOURCE)
    unit = fields["unit"]
    for track in tracks:
        corners = track.corners * FULL_SIDE.get(unit, 1)
        check_order(corners, fields["order"])
        check_unit(corners, unit)
    return tracks


def _numbers(box: Any) -> Any:
    return box.tolist() if isinstance(box, np.ndarray) else list(box) if isinstance(box, Sequence) else box


def _rows(given: Any) -> np.ndarray:
    """[T, 4], or [4] for one box.

    Raises:
        UserError: anything else.
    """
    expected = (
        "expected a file (.npy, .txt, .json), an array [T, 4], {frame: box}, a record's own form of a track, or four "
        "numbers"
    )
    try:
        rows = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"a track given as {type(given).__name__}: {expected}") from error
    if rows.shape[-1:] != (4,) or rows.ndim > 2 or not len(rows):
        raise UserError(f"a track of shape {list(rows.shape)}: {expected}")
    return rows
