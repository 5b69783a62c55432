"""Tracks written into a record: their form, and their boxes against the video's frames and size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from internvl_chat.data.checking.conversations import Notes, box_row, shortened
from internvl_chat.data.records.reader import BOX_ORDERS, BOX_UNITS, COUNTED_IN, TRACK_FIELDS, TRACK_KEYS

_DEFAULTS = {"by": "frame", "counted_in": "shown"}


@dataclass(frozen=True)
class WrittenTrack:
    """One object's boxes [K, 4] as written.

    Args:
        times: [K] frame numbers or seconds; None for one row a frame.
        says_between: it is said what is between the boxes, a moving box or nothing.
    """

    name: str
    boxes: npt.NDArray[np.float64]
    times: npt.NDArray[np.float64] | None
    by: str
    unit: str
    order: str
    absent: tuple[int, ...]
    in_stored: bool = False
    says_between: bool = False


def read_tracks(content: Any, notes: Notes) -> tuple[WrittenTrack, ...]:
    """Read `tracks`; what cannot be read is noted and left out."""
    if not isinstance(content, list) or not content:
        notes.add("track-keys", f"'tracks' is {shortened(content)}", "a list with an object a track")
        return ()
    tracks = (_read_track(entry, number, notes) for number, entry in enumerate(content, start=1))
    return tuple(track for track in tracks if track is not None)


def _read_track(entry: Any, number: int, notes: Notes) -> WrittenTrack | None:
    if not isinstance(entry, dict):
        notes.add("track-keys", f"track {number} is {shortened(entry)}", f"an object with {', '.join(TRACK_FIELDS)}")
        return None
    faults = [f"an unknown key {key!r}" for key in sorted(entry.keys() - set(TRACK_FIELDS))]
    choices_of = {"by": TRACK_KEYS, "unit": BOX_UNITS, "order": BOX_ORDERS, "counted_in": COUNTED_IN}
    for key, choices in choices_of.items():
        value = entry.get(key, _DEFAULTS.get(key))
        if value not in choices:
            faults.append(f"{key!r} {shortened(value)}, not one of {', '.join(choices)}")
    absent = entry.get("absent", [])
    if not isinstance(absent, list) or not all(type(v) is int for v in absent):
        faults.append(f"'absent' {shortened(absent)}, not a list of frame numbers")
    if not isinstance(entry.get("name"), str) or "boxes" not in entry:
        faults.append("no 'name' or no 'boxes'")
    if faults:
        notes.add("track-keys", f"track {number} has {'; '.join(faults)}", f"{', '.join(TRACK_FIELDS)}")
        return None
    read = _read_boxes(entry["boxes"], number, notes)
    if read is None:
        return None
    boxes, times = read
    return WrittenTrack(
        entry["name"],
        boxes,
        times,
        entry.get("by", "frame"),
        entry["unit"],
        entry["order"],
        tuple(absent),
        entry.get("counted_in") == "stored",
        "interpolate" in entry,
    )


def _read_boxes(
    content: Any, number: int, notes: Notes
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None] | None:
    if not isinstance(content, (list, dict)) or not content:
        notes.add("box-shape", f"'boxes' of track {number} is {shortened(content)}", "a box a frame")
        return None
    times: list[float] = []
    for key in content if isinstance(content, dict) else ():
        try:
            times.append(float(key))
        except ValueError:
            times.append(math.nan)
        if not math.isfinite(times[-1]) or times[-1] < 0:
            notes.add("track-frames", f"track {number} has a box at {key!r}", "a frame number or seconds, from 0")
            return None
    rows = [box_row(row) for row in (content.values() if isinstance(content, dict) else content)]
    if None in rows:
        at = rows.index(None)
        notes.add("box-shape", f"box {at + 1} of track {number} is not four numbers", "four numbers a box")
        return None
    boxes = np.array(rows, dtype=np.float64)
    return boxes, np.array(times) if isinstance(content, dict) else None
