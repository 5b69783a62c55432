"""How a stored picture becomes the one that a player shows, and where a box of the one lies in the other.

Everything downstream of this module sees the shown picture, and boxes are counted in it. A stored picture differs from
it by the display matrix of a phone's video, by the EXIF orientation of a photo, and by pixels that are not square.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from internvl_chat.contracts import UserError

# Encoders round the pixels' shape: what is this near to a square, players show as one.
_ROUNDING = Fraction(1, 100)
# A shape beyond it is a slip of the file, and would take all memory.
_MOST_OBLONG = 8
# The matrix's numbers are 16.16 fixed point, and a turn computed in them is off by its last digits.
_SMALL_SHARE = 0.001


@dataclass(frozen=True)
class Display:
    """What is done to a stored picture before it is shown, in this order.

    Args:
        pixel_aspect: width of a pixel by its height; the picture is enlarged along the longer one until they are equal.
        swaps_axes: rows become columns.
        flips_x, flips_y: then it is mirrored left to right, and upside down.
    """

    swaps_axes: bool = False
    flips_x: bool = False
    flips_y: bool = False
    pixel_aspect: Fraction = Fraction(1)

    @property
    def turns(self) -> bool:
        """Whether pixels move, apart from being made square."""
        return self.swaps_axes or self.flips_x or self.flips_y

    def square_size(self, width_px: int, height_px: int) -> tuple[int, int]:
        """Width and height of a stored picture with its pixels made square, before it is turned."""
        if self.pixel_aspect > 1:
            return round(width_px * self.pixel_aspect), height_px
        return width_px, round(height_px / self.pixel_aspect)

    def shown_size(self, width_px: int, height_px: int) -> tuple[int, int]:
        """Width and height at which a stored picture of this size is shown."""
        width_px, height_px = self.square_size(width_px, height_px)
        return (height_px, width_px) if self.swaps_axes else (width_px, height_px)

    def stored_size(self, width_px: int, height_px: int) -> tuple[int, int]:
        """Width and height of the stored picture that is shown at this size."""
        if self.swaps_axes:
            width_px, height_px = height_px, width_px
        if self.pixel_aspect > 1:
            return round(width_px / self.pixel_aspect), height_px
        return width_px, round(height_px * self.pixel_aspect)

    def shown(self, picture_HW3: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A picture with square pixels, turned as it is shown; the same array where nothing is to be done."""
        if self.swaps_axes:
            picture_HW3 = picture_HW3.transpose(1, 0, 2)
        if self.flips_x:
            picture_HW3 = picture_HW3[:, ::-1]
        if self.flips_y:
            picture_HW3 = picture_HW3[::-1]
        return np.ascontiguousarray(picture_HW3) if self.turns else picture_HW3

    def shown_boxes(self, corners: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Boxes [K, 4], x1 y1 x2 y2 in fractions of the stored picture's sides, in fractions of the shown one's."""
        x1, y1, x2, y2 = corners.T
        if self.swaps_axes:
            x1, y1, x2, y2 = y1, x1, y2, x2
        if self.flips_x:
            x1, x2 = 1 - x2, 1 - x1
        if self.flips_y:
            y1, y2 = 1 - y2, 1 - y1
        return np.stack([x1, y1, x2, y2], axis=1)


def display_of_matrix(matrix: Sequence[int]) -> Display:
    """What a video's display matrix asks for, apart from the pixels' shape.

    Args:
        matrix: nine numbers, row by row, as FFmpeg hands them on; a stored point (x, y) is shown at
            (x m[0] + y m[3], x m[1] + y m[4]).
    Raises:
        UserError: it turns by another angle than whole quarters.
    Source: ISO/IEC 14496-12, 6.2.2.
    """
    a, b, c, d = (float(matrix[place]) for place in (0, 1, 3, 4))
    small = _SMALL_SHARE * max(abs(v) for v in (a, b, c, d))
    if max(abs(b), abs(c)) <= small and a and d:
        return Display(flips_x=a < 0, flips_y=d < 0)
    if max(abs(a), abs(d)) <= small and b and c:
        return Display(swaps_axes=True, flips_x=c < 0, flips_y=b < 0)
    if a * d == b * c:
        return Display()  # It shows nothing at all: a slip of the writer, which players pass over.
    angle = math.degrees(math.atan2(b, a))
    raise UserError(f"its display matrix turns it by {angle:.0f} degrees, expected whole quarters: encode it again")


# By the number that EXIF gives them: 6 is a phone held upright.
_OF_EXIF = {
    2: Display(flips_x=True),
    3: Display(flips_x=True, flips_y=True),
    4: Display(flips_y=True),
    5: Display(swaps_axes=True),
    6: Display(swaps_axes=True, flips_x=True),
    7: Display(swaps_axes=True, flips_x=True, flips_y=True),
    8: Display(swaps_axes=True, flips_y=True),
}


def display_of_exif(exif: Image.Exif) -> Display:
    """What a photo's orientation asks for; numbers that EXIF does not define ask for nothing."""
    return _OF_EXIF.get(exif.get(ExifTags.Base.Orientation, 1), Display())


def pixel_aspect_of(stated: Fraction | None) -> Fraction:
    """The pixels' shape as a player takes it: 1 where the file states none, a rounded square, or a slip."""
    if not stated or abs(stated - 1) < _ROUNDING or not Fraction(1, _MOST_OBLONG) <= stated <= _MOST_OBLONG:
        return Fraction(1)
    return stated
