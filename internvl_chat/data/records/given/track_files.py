"""Tracks from files of their own, for clips that no annotation describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from internvl_chat.boxes import parse_box_text
from internvl_chat.contracts import Track, TrackFile, UserError
from internvl_chat.data.records.given.given_boxes import track_of_boxes
from internvl_chat.data.records.given.judged_tracks import read_judged_tracks
from internvl_chat.data.records.names import DEFAULT_NAME
from internvl_chat.files import read_json

# What the numbers of a file are that cannot say it itself.
FILE_FORMS = {
    ".npy": {"unit": "thousandths", "order": "xyxy", "interpolate": False},
    ".txt": {"unit": "pixels", "order": "xywh", "interpolate": False},
}


def tracks_of_file(path: Path, name: str | None = None) -> tuple[Track, ...]:
    """The tracks in `object_bboxes.npy` or `object_bboxes.txt`, or those of a JSON file in a record's form.

    Args:
        path: `.npy` [T, 4] thousandths, `.txt` with `x,y,w,h` in pixels a line, or `.json`: a list of tracks, or an
            object with `tracks`.
        name: what the prompt calls the object; of JSON, which has names of its own, the one that is meant. None is
            all of them.
    Raises:
        UserError: another kind of file, or one that cannot be read, or that has no object of this name.
    """
    if path.suffix == ".npy":
        return (TrackFile(name or DEFAULT_NAME, path),)
    if path.suffix == ".txt":
        return (track_of_boxes(parse_box_text(path), name or DEFAULT_NAME),)
    if path.suffix == ".json":
        return tracks_called(read_judged_tracks(read_track_record(path), False, str(path)), name, str(path))
    raise UserError(f"{path}: expected a track as .npy, .txt or .json")


def read_track_record(path: Path) -> dict[str, Any]:
    """What a JSON file says of tracks, as a record would: a list of tracks, or an object with `tracks`.

    Raises:
        UserError: it cannot be read; whether it is tracks is left to who reads them.
    """
    content = read_json(path)
    return content if isinstance(content, dict) else {"tracks": content}


def tracks_called(tracks: tuple[Track, ...], name: str | None, source: str) -> tuple[Track, ...]:
    """Those of the tracks that have this name; all of them without one.

    Raises:
        UserError: none has it.
    """
    chosen = tuple(track for track in tracks if name is None or track.name == name)
    if not chosen:
        known = ", ".join(dict.fromkeys(repr(track.name) for track in tracks))
        raise UserError(f"{source}: holds no object {name!r}: expected {known}")
    return chosen
