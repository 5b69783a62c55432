"""Boxes that a person gives, judged as `check` judges those of a dataset: unit, order, and the picture they lie in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from internvl_chat.boxes import corners_of, is_absent, sized_boxes
from internvl_chat.constants import BOX_SCALE
from internvl_chat.contracts import Sample, TrackRows, UserError
from internvl_chat.data.media.sources import MediaHeader, read_media_header
from internvl_chat.data.records.box_evidence import FEWEST, evidence_of
from internvl_chat.data.records.names import DEFAULT_NAME

# How far beyond the picture a corner may lie, as a share of its sides: an object at the edge, or a rounding.
_MARGIN = 0.05
# What a unit calls the whole side of a picture; pixels have no such number.
FULL_SIDE = {"thousandths": float(BOX_SCALE), "unit": 1.0}


def track_of_box(
    box: Sequence[float], name: str = DEFAULT_NAME, unit: str = "thousandths", order: str = "xyxy"
) -> TrackRows:
    """One box that holds for every picture.

    Args:
        box: four numbers, x1 y1 x2 y2, or x y w h with the order `xywh`.
        unit: `thousandths`, `pixels` or `unit` (0 to 1).
    Raises:
        UserError: it has no area, or is not in the unit and order that are said.
    """
    rows = np.array([box], dtype=np.float64)
    if rows.shape != (1, 4) or not np.isfinite(rows).all():
        raise UserError(f"the box {_written(box)}: expected four finite numbers")
    if order == "xywh":
        rows[:, 2:] += rows[:, :2]
    if is_absent(rows).any():
        raise UserError(f"the box {_written(box)} has no area{_as_corners(box, order)}")
    check_unit(rows, unit)
    return TrackRows(name, np.zeros(1), rows / FULL_SIDE.get(unit, 1), "always", in_pixels=unit == "pixels")


def track_of_boxes(boxes_px: npt.NDArray[np.float64], name: str = DEFAULT_NAME) -> TrackRows:
    """A track from boxes [T, 4] of every frame, x y w h in pixels, zeros where the object is absent."""
    frames = np.arange(len(boxes_px), dtype=np.float64)
    return TrackRows(name, frames, corners_of(boxes_px), in_pixels=True, is_complete=True)


def check_order(corners: npt.NDArray[np.float64], order: str) -> None:
    """See to it that boxes [K, 4] x1 y1 x2 y2, read in this order, run forwards; zeros say that the object is absent.

    Raises:
        UserError: a right side lies left of its left side, or a lower side above its upper side.
    """
    backwards = (corners[:, 2:] < corners[:, :2]).any(axis=1) & corners.any(axis=1)
    if not backwards.any():
        return
    at = int(np.argmax(backwards))
    first = f"{int(backwards.sum())} of {len(corners)} boxes run backwards, number {at + 1} first"
    if order == "xywh":
        raise UserError(f"{first}: expected x,y,w,h with a width and height of 0 or more")
    raise UserError(
        f"{first}, {_written(corners[at])}: expected x1,y1,x2,y2 with x1 < x2 and y1 < y2; if they are x,y,w,h, say so "
        "(order='xywh')"
    )


def check_unit(corners: npt.NDArray[np.float64], unit: str) -> None:
    """See to it that boxes [K, 4] x1 y1 x2 y2 can be in this unit.

    Raises:
        UserError: they are fractions where they should not be, or out of the unit's range.
    """
    rows = corners[~is_absent(corners)]
    if not len(rows):
        return
    largest, full = float(rows.max()), FULL_SIDE.get(unit)
    if unit != "unit" and (rows >= 0).all() and largest <= 1:
        named = f"thousandths of the picture's sides, 0 to {BOX_SCALE}" if full else "pixels"
        raise UserError(
            f"the box {_written(rows[0])} reaches no further than {largest:g}: it is in fractions, expected {named}; "
            f"in thousandths it is {_written(np.rint(rows[0] * BOX_SCALE))}"
        )
    if full is None:
        return
    outside = ((rows < -_MARGIN * full) | (rows > (1 + _MARGIN) * full)).any(axis=1)
    if outside.any():
        raise UserError(
            f"the box {_written(rows[outside][0])} is out of range: expected {unit}, 0 to {full:g} from side to side of"
            " the picture; for pixels say so (--box_unit pixels, unit='pixels')"
        )


def check_sized_boxes(track: TrackRows, size_px: tuple[int, int], path: Path) -> None:
    """See to it that boxes given as x y w h in pixels are not x1 y1 x2 y2: these leave the picture, as those do not.

    Raises:
        UserError: a box is.
    """
    sides = np.array(size_px * 2, dtype=np.float64)
    for box in sized_boxes(track.corners):
        leaves = (box[:2] + box[2:] > sides[2:] * (1 + _MARGIN)).any()
        if leaves and (box <= sides).all() and not is_absent(box[None]).any():
            raise UserError(
                f"the box {_written(box)} leaves the picture: {path} has {size_px[0]} x {size_px[1]} pixels; expected "
                f"x,y,w,h; if it is x1,y1,x2,y2, give {_written(sized_boxes(box[None])[0])}"
            )


def check_given_boxes(sample: Sample, header: MediaHeader | None = None) -> None:
    """See to it that boxes in pixels lie in the pictures that a sample shows.

    Args:
        header: of these pictures, where it is read already.
    Raises:
        UserError: a box lies outside, or boxes were counted in another size, or a track that was read as x y w h is x1
            y1 x2 y2.
    """
    tracks = [track for track in sample.tracks if isinstance(track, TrackRows) and track.in_pixels]
    if not tracks or not (sample.video_path or sample.image_paths):
        return
    header, path = header or read_media_header(sample), sample.video_path or sample.image_paths[0]
    for track in tracks:
        if track.by == "always":
            for size_px in header.sizes_px:
                _check_inside(track, size_px, _MARGIN, path)
        elif len(header.sizes_px) == 1:
            size_px = header.sizes_px[0]
            _check_track(track, header.display_at(0).stored_size(*size_px) if track.in_stored else size_px, path)


def _check_track(track: TrackRows, size_px: tuple[int, int], path: Path) -> None:
    """One box far out tells nothing among many: an object leaves the picture. A few are placed by hand, all inside."""
    evidence = evidence_of(sized_boxes(track.corners), size_px)
    if evidence.misread:
        raise UserError(f"the track {track.name!r}: {evidence.found}; expected {evidence.expected}")
    is_few = (~is_absent(track.corners)).sum() < FEWEST
    _check_inside(track, size_px, _MARGIN if is_few else None, path)


def _check_inside(track: TrackRows, size_px: tuple[int, int], margin: float | None, path: Path) -> None:
    """See to it that no box leaves the picture by more than a margin, a share of its sides; None is all but whole."""
    fractions = track.corners / np.array(size_px * 2)
    is_outside = ((fractions[:, 2:] <= 0) | (fractions[:, :2] >= 1)).any(axis=1)
    leaves = is_outside | (
        ((fractions < -margin) | (fractions > 1 + margin)).any(axis=1) if margin is not None else False
    )
    stated = np.isin(track.positions, list(track.absent)) & (track.by == "frame")
    wrong = leaves & ~is_absent(track.corners) & ~stated
    if not wrong.any():
        return
    at = int(np.argmax(wrong))
    where = "" if track.by == "always" else f" of {track.name!r} at {track.by} {track.positions[at]:g}"
    absent = "; where the object is absent, say so or give zeros" if margin is None else ""
    does, size = "lies outside" if is_outside[at] else "leaves", f"{size_px[0]} x {size_px[1]}"
    raise UserError(
        f"the box {_written(track.corners[at])}{where} {does} the picture: {path} has {size} pixels; expected x1,y1,x2,"
        f"y2 inside it{absent}"
    )


def _written(box: Sequence[float] | npt.NDArray[np.float64]) -> str:
    return ",".join(f"{value:g}" for value in box)


def _as_corners(box: Sequence[float], order: str) -> str:
    """What was expected of a box without area, and what it would be if it was written as x y w h."""
    if order == "xywh":
        return ": expected x,y,w,h with a width and height above 0"
    x, y, width, height = box
    hint = f"; if it is x,y,w,h, give {_written((x, y, x + width, y + height))}" if width > 0 and height > 0 else ""
    return f": expected x1,y1,x2,y2 with x1 < x2 and y1 < y2{hint}"
