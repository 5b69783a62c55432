"""Faults of boxes, one track at a time and by the statistics of a whole dataset."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from internvl_chat.boxes import corners_of, is_absent
from internvl_chat.constants import BOX_SCALE
from internvl_chat.data.checking.faults import Fault
from internvl_chat.data.checking.headers import BoxFileFacts
from internvl_chat.data.checking.written_tracks import WrittenTrack
from internvl_chat.data.media.sources import MediaHeader
from internvl_chat.data.records.box_evidence import (
    FEWEST,
    TELLING_SHARE,
    Boxes,
    BoxEvidence,
    evidence_of,
    present_rows,
    seems_xyxy,
)
from internvl_chat.data.records.box_files import shown_thousandths
from internvl_chat.data.records.given.judged_tracks import few_of_span
from internvl_chat.data.records.reader import COUNTED_IN
from internvl_chat.data.records.tracks import CORNER_MARGIN, SECONDS_REACH_S

# Width and height in pixels; None if not known, or not one for all pictures.
Size = tuple[int, int] | None

# Boxes in thousandths all keep within the picture's size in pixels by chance less often than this.
CHANCE = 1e-6
# Where they are too few to tell so surely, this is worth a look.
DOUBTFUL_CHANCE = 0.5
# Boxes in pixels reach at least this share of the picture's size somewhere.
NEAR_EDGE = 0.9
# Key frames come at one distance, but for a few that were set by hand.
_REGULAR_SHARE = 0.8
_SIDES = ("x1", "y1", "x2", "y2")
_FULL_SIDE = {"unit": 1.0, "thousandths": float(BOX_SCALE)}


@dataclass(frozen=True)
class Extent:
    """How far right and down the boxes of one picture or video reach, beside its size in pixels."""

    right: float
    bottom: float
    width_px: int
    height_px: int


def seems_xywh(boxes: Boxes, limits: Boxes) -> bool:
    """Whether boxes [N, 4] that are stated to be x1 y1 x2 y2 are x y w h: many run backwards, all fit as the latter.

    Args:
        limits: the largest x1 y1 x2 y2 that are inside the picture, [4], in the boxes' unit.
    """
    rows = present_rows(boxes)
    if len(rows) < FEWEST or is_absent(rows).mean() < TELLING_SHARE:
        return False
    return bool((rows[:, 2:] > 0).all() and (rows[:, :2] + rows[:, 2:] <= limits[2:] * 1.01).all())


def size_px(header: MediaHeader | None) -> Size:
    """Width and height of the pictures, where they have one size."""
    sizes = set(header.sizes_px) if header else set()
    return sizes.pop() if len(sizes) == 1 else None


def fits_pixels(boxes: Boxes, size: Size) -> bool:
    """Whether the boxes lie inside the picture if their numbers are pixels."""
    return size is not None and bool((boxes >= 0).all() and (boxes <= np.array(size * 2) + 1).all())


def extent_of(boxes: Boxes, size: Size) -> Extent | None:
    """The reach of x1 y1 x2 y2 boxes; None without a present box or a known size."""
    rows = boxes[~is_absent(boxes)]
    if not len(rows) or size is None:
        return None
    return Extent(float(rows[:, 2].max()), float(rows[:, 3].max()), *size)


def seem_pixels(extents: Iterable[Extent], fewest: int = FEWEST, chance: float = CHANCE) -> bool:
    """Whether boxes that are stated to be thousandths are pixels: they reach up to each picture's size, no further.

    In thousandths, a picture's furthest box stays within its W pixels about W times in a thousand.

    Args:
        fewest: pictures, or tracks, that tell.
        chance: that thousandths do the same; below it they are taken for pixels.
    """
    # Copies of one track say no more than one of them.
    different = set(extents)
    reaches = [(e.right, e.width_px) for e in different], [(e.bottom, e.height_px) for e in different]
    log_chance = 0.0
    for axis in reaches:
        narrow = [(reach, side) for reach, side in axis if side < BOX_SCALE]
        if any(reach > side + 1 for reach, side in axis) or (narrow and max(r / s for r, s in narrow) < NEAR_EDGE):
            return False
        log_chance += sum(math.log(side / BOX_SCALE) for _, side in narrow)
    return len(different) >= fewest and log_chance < math.log(chance)


def unit_doubt(extents: Iterable[Extent], what: str) -> Fault | None:
    """That boxes may be pixels, where they are too few to tell."""
    if not seem_pixels(extents, 1, DOUBTFUL_CHANCE):
        return None
    found = f"{what} reach up to the size of their pictures in pixels, and none beyond it"
    return Fault("box-unit-doubt", found, f"thousandths, 0 to {BOX_SCALE}: are they?")


def box_file_faults(file: BoxFileFacts, header: MediaHeader | None) -> Iterator[Fault]:
    """What is wrong with the rows of `object_bboxes.npy`, beside a video with this header."""
    if file.fault or file.boxes is None:
        yield Fault(file.fault, file.found, "an integer array [T, 4], x1 y1 x2 y2 in thousandths")
        return
    if file.text_px is not None and header and not _is_of_text(file.boxes, file.text_px, header):
        yield Fault("box-file-stale", "holds other boxes than the text beside it", "the boxes of object_bboxes.txt")
    if file.text_px is not None:
        without = is_absent(corners_of(file.text_px)) & file.text_px.any(axis=1) & (file.text_px != -1).any(axis=1)
        if without.any():
            found = f"{int(without.sum())} boxes of the text beside it have no area, line {_first(without)} first"
            yield Fault("track-degenerate", found, "a width and height, or zeros where the object is absent")
    boxes = file.boxes.astype(np.float64)
    if header and len(boxes) != header.num_pictures:
        yield Fault("box-rows", f"holds {len(boxes)} boxes", f"{header.num_pictures}, one a frame of the video")
    if (fault := _not_finite(boxes)) or (fault := _thousandths_fault(boxes, size_px(header))):
        yield fault
    elif ((boxes < 0) | (boxes > BOX_SCALE)).any():
        yield _range_fault(boxes)
    elif file.boxes.dtype.kind == "f":
        yield Fault("box-shape", f"holds numbers of the kind {file.boxes.dtype}", "integers: thousandths")
    elif seems_xywh(boxes, np.full(4, BOX_SCALE)):
        yield _order_fault(boxes)
    else:
        yield from _area_faults(boxes)


def _is_of_text(boxes: npt.NDArray, text_px: Boxes, header: MediaHeader) -> bool:
    """Whether a box file is what `generate_npy_bboxes.py` makes of the text, however its pixels were counted."""
    display, size = header.display_at(0), header.sizes_px[0]
    ways = (shown_thousandths(text_px, size, display, counted_in) for counted_in in COUNTED_IN)
    # A stored size that is told from the shown one may be off by a rounding.
    return any(boxes.shape == way.shape and np.abs(boxes - way).max() <= 1 for way in ways)


def text_evidence(file: BoxFileFacts, header: MediaHeader | None) -> BoxEvidence:
    """What the numbers of the text beside a video show, before they are cut at its edges."""
    if file.text_px is None or header is None or len(header.sizes_px) != 1:
        return BoxEvidence()
    display, size = header.display_at(0), header.sizes_px[0]
    evidence = evidence_of(file.text_px, size)
    is_stored = display.turns and evidence.misread and not evidence_of(file.text_px, display.stored_size(*size)).misread
    return BoxEvidence() if is_stored else evidence


def text_fault(evidence: BoxEvidence) -> Fault | None:
    """The fault that the numbers of a box text show."""
    if evidence.misread is None:
        return None
    return Fault("box-order" if evidence.misread == "corners" else "box-unit", evidence.found, evidence.expected)


def track_faults(track: WrittenTrack, header: MediaHeader) -> Iterator[Fault]:
    """What is wrong with a track of a record that shows these pictures."""
    yield from _time_faults(track, header)
    yield from _sparseness(track)
    boxes, size = track.boxes, size_px(header)
    if size and track.in_stored:
        size = header.display_at(0).stored_size(*size)
    if fault := _not_finite(boxes):
        yield fault
        return
    if track.unit == "pixels" and size is None:
        return
    scale = np.array((size or (1, 1)) * 2) if track.unit == "pixels" else np.full(4, _FULL_SIDE[track.unit])
    if fault := _unit_fault(track, size):
        yield fault
    elif track.order == "xyxy" and seems_xywh(boxes, scale):
        yield _order_fault(boxes)
    elif track.order == "xywh" and seems_xyxy(boxes, scale):
        yield Fault(
            "box-order", "as x y w h, boxes leave the picture; as x1 y1 x2 y2, all are inside", "'order': 'xyxy'"
        )
    else:
        corners = corners_of(boxes) if track.order == "xywh" else boxes
        seen = corners[~_stated_absent(track)]
        yield from _reach_faults(seen / scale)
        yield from _area_faults(seen)


def _stated_absent(track: WrittenTrack) -> npt.NDArray[np.bool_]:
    """Which rows [K] stand at frames that the track says the object is absent from: whatever they hold is no fault."""
    positions = np.arange(len(track.boxes)) if track.times is None else track.times
    return np.isin(positions, track.absent) & (track.by == "frame")


def _sparseness(track: WrittenTrack) -> Iterator[Fault]:
    """Boxes that may be key frames, few or at a regular distance, where it is not said what is between them."""
    if track.says_between or track.times is None:
        return
    expected = "'interpolate': true for key frames, false where the object is absent, or a box for every frame"
    if few := few_of_span(track.times, track.absent if track.by == "frame" else ()):
        found = f"track {track.name!r} has a box at {few[0]} of {few[1]} {track.by}s: the others read as absent"
        yield Fault("track-sparse", found, expected)
        return
    if len(track.times) < FEWEST:
        return
    gaps = np.diff(np.sort(track.times))
    usual, covered = float(np.median(gaps)), 2 * SECONDS_REACH_S if track.by == "second" else 1.0
    if usual > covered * 1.01 and (np.abs(gaps - usual) < 0.01 * usual).mean() >= _REGULAR_SHARE:
        found = f"track {track.name!r} has a box every {usual:g} {track.by}s: what lies between reads as absent"
        yield Fault("track-sparse", found, expected)


def text_box_faults(boxes: Boxes) -> Iterator[Fault]:
    """What is wrong with the boxes of one record's texts, each by itself."""
    if fault := _not_finite(boxes):
        yield fault
    elif ((boxes < 0) | (boxes > BOX_SCALE)).any():
        yield _range_fault(boxes)
    elif boxes.any() and (boxes <= 1).all() and (boxes % 1).any():
        yield Fault("box-unit", f"the boxes reach no further than {boxes.max():g}", f"thousandths, 0 to {BOX_SCALE}")
    elif (boxes % 1).any():
        yield Fault("box-syntax", f"box {_first((boxes % 1).any(axis=1))} has fractions", "whole thousandths")
    elif is_absent(boxes).any():
        row = boxes[_first(is_absent(boxes)) - 1]
        yield Fault("box-degenerate", f"the box {_written(row)} has no area", "x1 < x2 and y1 < y2")


def _first(rows: npt.NDArray | np.bool_) -> int:
    """Number, from 1, of the first row that is true."""
    return int(np.argmax(rows)) + 1


def _written(row: Boxes) -> str:
    return "[" + ", ".join(f"{v:g}" for v in row) + "]"


def _not_finite(boxes: Boxes) -> Fault | None:
    bad = ~np.isfinite(boxes).all(axis=1)
    if not bad.any():
        return None
    at = _first(bad)
    return Fault("box-nan", f"box {at} is {_written(boxes[at - 1])}", "finite numbers")


def _range_fault(boxes: Boxes) -> Fault:
    bad = (boxes < 0) | (boxes > BOX_SCALE)
    at = _first(bad.any(axis=1))
    side = _SIDES[int(np.argmax(bad[at - 1]))]
    return Fault("box-range", f"box {at} is {_written(boxes[at - 1])}: {side} is out of range", f"0 to {BOX_SCALE}")


def _reach_faults(corners: Boxes) -> Iterator[Fault]:
    """Boxes of a track, in fractions of the picture's sides, that lie outside it; those that lie far outside."""
    present = ~is_absent(corners)
    far = ((corners < -CORNER_MARGIN) | (corners > 1 + CORNER_MARGIN)).any(axis=1) & present
    outside = ((corners[:, 2:] <= 0) | (corners[:, :2] >= 1)).any(axis=1) & present
    if far.any():
        found = f"box {_first(far)} is {_written(corners[_first(far) - 1])} in picture sides"
        yield Fault("box-range", found, "corners in the picture or near it")
    elif outside.any():
        yield Fault(
            "track-outside", f"{int(outside.sum())} boxes lie outside, box {_first(outside)} first", "boxes inside"
        )


def _order_fault(boxes: Boxes) -> Fault:
    rows = present_rows(boxes)
    count = int(is_absent(rows).sum())
    found = f"{count} of {len(rows)} boxes run backwards, box {_first(is_absent(boxes) & boxes.any(axis=1))} first"
    return Fault("box-order", found + "; as x y w h all are inside the picture", "x1 y1 x2 y2")


def _area_faults(corners: Boxes) -> Iterator[Fault]:
    if not len(corners):
        yield Fault("track-absent", "the object is absent from every frame", "a frame in which the object is seen")
        return
    degenerate = is_absent(corners) & corners.any(axis=1)
    if is_absent(corners).all():
        yield Fault("track-absent", f"none of {len(corners)} boxes has an area", "a frame in which the object is seen")
    elif degenerate.any():
        at = _first(degenerate)
        found = f"{int(degenerate.sum())} boxes have no area, box {at} first: {_written(corners[at - 1])}"
        yield Fault("track-degenerate", found, "an area, or zeros where the object is absent")


def _thousandths_fault(boxes: Boxes, size: Size) -> Fault | None:
    """The fault of numbers that are in another unit than thousandths."""
    expected = f"thousandths, 0 to {BOX_SCALE}"
    if boxes.any() and (boxes >= 0).all() and (boxes <= 1).all():
        return Fault("box-unit", f"the numbers reach no further than {boxes.max():g}", expected)
    if size and (boxes > BOX_SCALE).any() and fits_pixels(boxes, size):
        return Fault(
            "box-unit", f"the numbers reach {boxes.max():g}, inside the {size[0]} x {size[1]} pixels", expected
        )
    return None


def _unit_fault(track: WrittenTrack, size: Size) -> Fault | None:
    boxes, largest = track.boxes, float(track.boxes.max())
    expected = f"'unit': {track.unit!r}"
    if track.unit == "thousandths":
        return _thousandths_fault(boxes, size)
    if track.unit == "unit" and largest > 1 + CORNER_MARGIN:
        return Fault("box-unit", f"the numbers reach {largest:g}", f"0 to 1, as {expected} says")
    if track.unit == "pixels" and 0 < largest <= 1:
        return Fault("box-unit", f"the numbers reach no further than {largest:g}", f"pixels, as {expected} says")
    if track.unit == "pixels" and size and boxes.min() >= 0 and largest <= BOX_SCALE:
        beyond = (boxes > np.array(size * 2) * 1.05).any(axis=1)
        if len(boxes) >= FEWEST and beyond.mean() >= 0.5:
            found = f"most boxes leave the {size[0]} x {size[1]} pixels and none exceeds {BOX_SCALE}"
            hint = "are they thousandths, or in another order of numbers than stated?"
            return Fault("box-unit", found, f"pixels inside it, as {expected} says; {hint}")
    return None


def _time_faults(track: WrittenTrack, header: MediaHeader) -> Iterator[Fault]:
    count = header.num_pictures
    if track.times is None and track.by == "frame" and len(track.boxes) != count:
        yield Fault(
            "box-rows", f"track {track.name!r} holds {len(track.boxes)} boxes", f"{count}, one a frame or picture"
        )
    if track.times is not None:
        if track.by == "second":
            last = header.timeline.duration_s + SECONDS_REACH_S if header.frames_per_second else math.inf
        else:
            last = count - 1
        if track.times.max() > last:
            # As many frames as there are, and none of them the first: so counts who begins with 1.
            from_one = track.by == "frame" and track.times.min() > 0 and track.times.max() == count
            expected = f"0 to {last:g}" + ("; are they counted from 1?" if from_one else "")
            yield Fault("track-frames", f"track {track.name!r} has a box at {track.times.max():g}", expected)
    strays = [frame for frame in track.absent if not 0 <= frame < count]
    if strays:
        yield Fault("track-frames", f"track {track.name!r} is absent at frame {strays[0]}", f"0 to {count - 1}")
