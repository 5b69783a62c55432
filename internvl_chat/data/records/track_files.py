"""Tracks from files of their own, for clips that no annotation describes."""

from __future__ import annotations

from pathlib import Path

from internvl_chat.boxes import parse_box_text
from internvl_chat.contracts import Track, TrackFile, UserError
from internvl_chat.data.records.given_boxes import track_of_boxes
from internvl_chat.data.records.names import DEFAULT_NAME
from internvl_chat.data.records.reader import read_tracks
from internvl_chat.files import read_json


def tracks_of_file(path: Path, name: str = DEFAULT_NAME) -> tuple[Track, ...]:
    """The tracks in `object_bboxes.npy` or `object_bboxes.txt`, or those of a JSON file in a record's form.

    Args:
        path: `.npy` [T, 4] thousandths, `.txt` with `x,y,w,h` in pixels a line, or `.json`: a list of tracks, or an
            object with `tracks`.
        name: what the prompt calls the object; JSON has names of its own.
    Raises:
        UserError: another kind of file, or one that cannot be read.
    """
    if path.suffix == ".npy":
        return (TrackFile(name, path),)
    if path.suffix == ".txt":
        return (track_of_boxes(parse_box_text(path), name),)
    if path.suffix == ".json":
        content = read_json(path)
        return read_tracks(content if isinstance(content, dict) else {"tracks": content}, False, str(path))
    raise UserError(f"{path}: expected a track as .npy, .txt or .json")
