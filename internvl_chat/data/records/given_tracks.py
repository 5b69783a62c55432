"""Tracks as a person or a program hands them over: a file, an array, frames with boxes, or one box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from internvl_chat.constants import BOX_SCALE
from internvl_chat.contracts import Track, TrackFile, TrackRows, UserError
from internvl_chat.data.records.given_boxes import FULL_SIDE, check_order, check_unit, track_of_box
from internvl_chat.data.records.names import DEFAULT_NAME
from internvl_chat.data.records.reader import read_tracks
from internvl_chat.data.records.track_files import tracks_called, tracks_of_file

# A file; an array [T, 4]; {frame: box}; the record's own form of a track; one box; or what the readers make of these.
GivenTrack = Any
_SOURCE = "the track"
# Detectors miss a frame here and there; below this share of frames with a box, key frames are as likely.
_FEWEST_COVERED = 0.5


def as_tracks(
    given: GivenTrack,
    *,
    name: str | None = None,
    unit: str | None = None,
    order: str = "xyxy",
    interpolate: bool | None = None,
    is_for_images: bool = False,
) -> tuple[Track, ...]:
    """The tracks in whatever form they are given.

    Args:
        given: the path of a `.npy`, `.txt` or `.json` file; [T, 4] numbers, a box a frame; {frame: box}; a track, or
            a list of tracks, in the form of a record (`{"name": ..., "boxes": ..., "unit": ..., "order": ...}`); four
            numbers, one box for every frame.
        name: how the prompt calls the object; of a record's or a JSON file's tracks, which have names of their own,
            the one that is meant.
        unit: of arrays, frames and boxes, which nothing else tells: `pixels`, `thousandths` or `unit` (0 to 1).
        order: of their numbers, `xyxy` or `xywh`.
        interpolate: whether the boxes of {frame: box} are key frames; if not, the object is absent from the others.
    Raises:
        UserError: it is none of these, or not in the unit and order that are said; or none of its tracks has the name;
            or it is not said whether a few boxes are key frames.
    """
    if isinstance(given, TrackFile | TrackRows):
        return (replace(given, name=name or given.name),)
    if isinstance(given, str | Path):
        return tracks_of_file(Path(given), name)
    if isinstance(given, Mapping) and "boxes" in given:
        return tracks_called(_read(dict(given), is_for_images), name, _SOURCE)
    if isinstance(given, list | tuple) and given and isinstance(given[0], Mapping | TrackFile | TrackRows):
        read = (track for one in given for track in as_tracks(one, is_for_images=is_for_images))
        return tracks_called(tuple(read), name, _SOURCE)
    name = name or DEFAULT_NAME
    if isinstance(given, Mapping):
        boxes: Any = {str(frame): _numbers(box) for frame, box in given.items()}
        fields = {"name": name, "boxes": boxes, "unit": _stated(unit), "order": order}
        keyed = _read({**fields, "interpolate": bool(interpolate)}, is_for_images)
        if interpolate is None:
            _check_coverage(keyed[0])
        return keyed
    if interpolate:
        raise UserError("interpolate=True: only the boxes of {frame: box} can be key frames")
    rows = _rows(given)
    unit = _stated(unit)
    if rows.ndim == 1:
        one = {"name": name, "boxes": [rows.tolist()], "unit": unit, "order": order}
        read_tracks({"tracks": [one]}, True, _SOURCE)
        return (track_of_box(rows.tolist(), name, unit, order),)
    return _read({"name": name, "boxes": rows.tolist(), "unit": unit, "order": order}, is_for_images)


def one_track(
    given: GivenTrack, name: str | None, unit: str | None, order: str, interpolate: bool | None = None
) -> Track:
    """The track of the object that is meant, as `as_tracks` reads it.

    Raises:
        UserError: as there, or it holds several objects.
    """
    tracks = as_tracks(given, name=name, unit=unit, order=order, interpolate=interpolate)
    if len(tracks) > 1:
        names = ", ".join(repr(track.name) for track in tracks)
        raise UserError(f"the track holds {len(tracks)} objects, {names}: name= says which one is meant")
    return tracks[0]


def _stated(unit: str | None) -> str:
    """The unit, which no number tells: pixels read as thousandths are a box beside the object.

    Raises:
        UserError: nobody said it.
    """
    if unit is None:
        raise UserError(
            "a track given as numbers, without their unit: expected unit='pixels', unit='thousandths' (0 to "
            f"{BOX_SCALE} from side to side) or unit='unit' (0 to 1); their order is x1,y1,x2,y2 unless order='xywh'"
        )
    return unit


def _check_coverage(track: TrackRows) -> None:
    """See to it that boxes of frames are not key frames which nobody called so.

    Raises:
        UserError: most frames from the first box to the last have none.
    """
    positions = track.positions
    span = int(positions[-1] - positions[0]) + 1
    if len(positions) < span * _FEWEST_COVERED:
        raise UserError(
            f"the track {track.name!r} has a box at {len(positions)} of the {span} frames from {positions[0]:g} to "
            f"{positions[-1]:g}: say interpolate=True if they are key frames, interpolate=False if the object is "
            "absent from the others"
        )


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
