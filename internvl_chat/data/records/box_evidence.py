"""What box files say about themselves before anything is cut at the picture's edge: another order, unit or size.

A single file can be told only where its numbers are impossible as stated. Where a telling share of a dataset's files
is, the others are of the same make: those that would fit it too are not believed either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from internvl_chat.boxes import BoxArray, is_absent, thousandths_from_fractions
from internvl_chat.contracts import UserError

Boxes = npt.NDArray[np.float64]
Misreading = Literal["corners", "fractions", "scale"]

# Below this many boxes or pictures nothing is concluded from statistics.
FEWEST = 5
# From this share of boxes on, what one box shows is no slip of a single box.
TELLING_SHARE = 0.1
# Rounding, and a tracker's slip; and what is no slip any more.
_NEAR, _BEYOND = 1.01, 1.05
# What is seen by chance more often than this is no doubt: of so many files or tracks, fewer tell nothing together.
_CHANCES = {8: 1e-4, 3: 1e-3}
# A target may hang over the edge for a while, most of the boxes of a whole dataset do not.
_MOST = 0.5


@dataclass(frozen=True)
class BoxEvidence:
    """What the numbers of one box file show.

    Args:
        misread: what they are instead of x y w h in pixels of the picture; None if nothing shows it.
        found, expected: the same in words.
        may_be_corners: as x1 y1 x2 y2 every box has an area and lies inside the picture, too.
        reach: how far right and down the furthest boxes go, in shares of the picture's sides; zeros without a box.
    """

    misread: Misreading | None = None
    found: str = ""
    expected: str = ""
    may_be_corners: bool = False
    reach: tuple[float, float] = (0.0, 0.0)


def present_rows(boxes: Boxes) -> Boxes:
    """The rows that are not all zero."""
    return boxes[boxes.any(axis=1)]


def seems_xyxy(boxes: Boxes, limits: Boxes) -> bool:
    """Whether boxes [N, 4] stated to be x y w h are x1 y1 x2 y2: many leave the picture, as the latter none does.

    Args:
        limits: the largest x1 y1 x2 y2 that are inside the picture, [4], in the boxes' unit.
    """
    rows = present_rows(boxes)
    leaving = (rows[:, :2] + rows[:, 2:] > limits[2:] * _NEAR).any(axis=1)
    return len(rows) >= FEWEST and bool(leaving.mean() >= TELLING_SHARE) and _fit_as_corners(rows, limits)


def _fit_as_corners(rows: Boxes, limits: Boxes) -> bool:
    return bool(not is_absent(rows).any() and (rows <= limits * _NEAR).all())


def evidence_of(boxes_px: Boxes, size_px: tuple[int, int]) -> BoxEvidence:
    """Judge a box file's rows [T, 4], x y w h in pixels of a picture of this size."""
    rows, limits = present_rows(boxes_px), np.array(size_px * 2, dtype=np.float64)
    size = f"{size_px[0]} x {size_px[1]}"
    may_be_corners = len(rows) >= FEWEST and _fit_as_corners(rows, limits)
    if seems_xyxy(boxes_px, limits):
        found = f"as x,y,w,h boxes leave the {size} pixels, as x1,y1,x2,y2 all are inside"
        return BoxEvidence("corners", found, "x,y,w,h: write x2 - x1 and y2 - y1", may_be_corners)
    if len(rows) and (rows <= 1).all() and (rows % 1).any():
        found = f"the numbers reach no further than {rows.max():g}: they are fractions"
        return BoxEvidence("fractions", found, f"pixels of {size}")
    beyond = (rows[:, :2] + rows[:, 2:] > limits[2:] * _BEYOND).any(axis=1) & ~_without_area(rows)
    if len(rows) >= FEWEST and beyond.mean() >= _MOST:
        found = f"{int(beyond.sum())} of {len(rows)} boxes reach beyond the {size} pixels of the video"
        return BoxEvidence("scale", found, f"pixels of {size}: were they counted in another size, or in thousandths?")
    if not len(rows):
        return BoxEvidence()
    right, bottom = ((rows[:, :2] + rows[:, 2:]).max(axis=0) / limits[2:]).tolist()
    return BoxEvidence(may_be_corners=may_be_corners, reach=(right, bottom))


def kept_small(reaches: Iterable[tuple[float, float]]) -> tuple[float, float] | None:
    """How far the boxes of all files or tracks reach, if they keep so near to the upper left that it is doubted.

    Furthest boxes end anywhere in a picture: that all of `n` end within the shares `a` and `b` of its sides is a chance
    of (a b)^n at most. Fractions, percents, thousandths and boxes of a smaller copy of the videos do.

    Args:
        reaches: how far right and down each goes, in shares of the picture's sides; zeros where there is no box.
    """
    # Copies of one track say no more than one of them.
    different = sorted({reach for reach in reaches if any(reach)})
    chance = next((chance for fewest, chance in _CHANCES.items() if len(different) >= fewest), None)
    if chance is None:
        return None
    right, bottom = np.max(different, axis=0).tolist()
    return (right, bottom) if len(different) * np.log(right * bottom) < np.log(chance) else None


def _without_area(rows_xywh: Boxes) -> npt.NDArray[np.bool_]:
    return (rows_xywh[:, 2] <= 0) | (rows_xywh[:, 3] <= 0)


def judged_thousandths(corners: Sequence[float], size_px: tuple[int, int], source: str) -> BoxArray:
    """One stated box in thousandths [4], judged before it is cut at the picture's edge; zeros if it has no area.

    Args:
        corners: x1 y1 x2 y2 in pixels of a picture of this size; with size 1 x 1, in fractions of its sides.
        source: where it stands, for messages.
    Raises:
        UserError: it reaches further beyond the picture than a slip does, or is in fractions where pixels are stated.
    """
    box, sides = np.array(corners, dtype=np.float64), np.array(size_px * 2, dtype=np.float64)
    if is_absent(box):
        return np.zeros(4, dtype=np.int64)
    written = ", ".join(f"{v:g}" for v in box)
    of_size = "0 to 1" if size_px == (1, 1) else f"pixels of {size_px[0]} x {size_px[1]}"
    if max(size_px) > 1 and (box <= 1).all() and (box % 1).any():
        raise UserError(f"{source}: the box [{written}], x1 y1 x2 y2, is in fractions: expected {of_size}")
    shares = box / sides
    if (shares > _BEYOND).any() or (shares < 1 - _BEYOND).any():
        raise UserError(
            f"{source}: the box [{written}], x1 y1 x2 y2, reaches beyond the picture: expected {of_size}: "
            "was it counted in another size or unit?"
        )
    return thousandths_from_fractions(shares[None])[0]


def judged_together(files: Sequence[BoxEvidence]) -> list[BoxEvidence]:
    """The evidence of a dataset's files, where the telling ones speak for the others as well."""
    corners = sum(file.misread == "corners" for file in files)
    if corners >= TELLING_SHARE * len(files) and all(
        file.misread == "corners" or file.may_be_corners for file in files
    ):
        found = f"{corners} of {len(files)} box files hold x1,y1,x2,y2, and this one may"
        doubt = BoxEvidence("corners", found, "x,y,w,h: write x2 - x1 and y2 - y1")
        return [file if file.misread else doubt for file in files]
    scaled = sum(file.misread == "scale" for file in files)
    if scaled and scaled >= _MOST * len(files):
        found = f"most boxes of {scaled} of {len(files)} box files reach beyond their videos"
        doubt = BoxEvidence("scale", found, "pixels of the video: were they counted in another size?")
        return [file if file.misread else doubt for file in files]
    return list(files)
