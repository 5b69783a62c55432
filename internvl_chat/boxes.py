"""Box algebra: pixels to thousandths, which boxes are absent, and the `object_bboxes` files.

Suffixes: `boxes_px` are x y w h in pixels; `boxes` without a suffix, and `BoxArray`, are x1 y1 x2 y2 in thousandths of
the picture's side (0 to 1000), one row a frame, all zero where the object is absent.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from tokenize import TokenError

import numpy as np
import numpy.typing as npt

from internvl_chat.constants import BOX_SCALE
from internvl_chat.contracts import UserError
from internvl_chat.files import replacing

BoxArray = npt.NDArray[np.integer]

# A track as the challenge ships it, and as the training reads it; both lie beside the video.
BOX_TEXT_NAME = "object_bboxes.txt"
BOX_ARRAY_NAME = "object_bboxes.npy"

_ZIP_MAGIC = b"PK"
# What numpy raises, over its versions, at a file that is no npy.
_NPY_FAULTS = (OSError, ValueError, EOFError, TypeError, OverflowError, TokenError)
_FIELD_SEPARATOR = re.compile(r"\s*,\s*|\s+")


def is_absent(boxes: npt.NDArray) -> npt.NDArray[np.bool_]:
    """Which of the boxes [..., 4] (x1 y1 x2 y2, any unit) have no area: the object is not in the picture."""
    return (boxes[..., 2] <= boxes[..., 0]) | (boxes[..., 3] <= boxes[..., 1])


def corners_of(boxes_px: npt.NDArray) -> npt.NDArray[np.float64]:
    """x y w h [T, 4] as x1 y1 x2 y2."""
    return np.concatenate([boxes_px[:, :2], boxes_px[:, :2] + boxes_px[:, 2:]], axis=1)


def sized_boxes(corners: npt.NDArray) -> npt.NDArray[np.float64]:
    """x1 y1 x2 y2 [T, 4] as x y w h."""
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def thousandths_from_pixels(boxes_px: npt.NDArray, width_px: int, height_px: int) -> BoxArray:
    """Convert a track to what the model and the prompt use.

    Args:
        boxes_px: [T, 4] x y w h in pixels; a box without area means that the object is absent.
        width_px, height_px: size of the video.
    Returns:
        [T, 4] int64, x1 y1 x2 y2 in thousandths, each `clamp(round(v / size * 1000), 0, 1000)`, or rounded
        outwards where that would leave no area; a box that is absent, or has no area inside the picture, is all zero.
    Source: IntentVC's preprocessing; 320,180,160,90 in 1280 x 720 gives 250, 250, 375, 375.
    """
    boxes_px = np.asarray(boxes_px, dtype=np.float64)
    return thousandths_from_fractions(corners_of(boxes_px) / np.array([width_px, height_px] * 2))


def thousandths_from_fractions(corners: npt.NDArray) -> BoxArray:
    """Boxes [T, 4], x1 y1 x2 y2 in fractions of the picture's sides, as int64 thousandths inside the picture.

    A box without area, before or after it is cut at the picture's edge, is all zero. Any other keeps an area, however
    small it is: a side that rounding would close is rounded outwards.
    """
    inside = np.clip(corners, 0, 1) * BOX_SCALE
    boxes = np.rint(inside).astype(np.int64)
    closed = boxes[:, 2:] <= boxes[:, :2]
    boxes[:, :2] = np.where(closed, np.floor(inside[:, :2]), boxes[:, :2])
    boxes[:, 2:] = np.where(closed, np.ceil(inside[:, 2:]), boxes[:, 2:])
    boxes[is_absent(corners) | is_absent(inside)] = 0
    return boxes


def parse_box_text(path: Path, nan_is_absent: bool = False) -> npt.NDArray[np.float64]:
    """Read `object_bboxes.txt`: one `x,y,w,h` in pixels a line, separated by commas, spaces or tabs.

    Args:
        nan_is_absent: read a line of four NaN, as some trackers write it, as zeros.
    Returns:
        [T, 4] float64.
    Raises:
        UserError: the file cannot be read, is empty, or a line does not hold four finite numbers.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise UserError(f"{path}: is empty, expected one 'x,y,w,h' line a frame")
    rows = np.empty((len(lines), 4))
    for index, line in enumerate(lines):
        try:
            # Python alone takes 1_0 for a number.
            values = [float(v) for v in _FIELD_SEPARATOR.split(line.strip().replace("_", "?"))]
        except ValueError:
            values = []
        if nan_is_absent and len(values) == 4 and all(math.isnan(v) for v in values):
            values = [0.0] * 4
        if len(values) != 4 or not all(math.isfinite(v) for v in values):
            raise UserError(f"{path}:{index + 1}: expected four finite numbers 'x,y,w,h', got {line.strip()!r}")
        rows[index] = values
    return rows


def save_boxes(path: Path, boxes: BoxArray) -> None:
    """Write a track to `path` in one step: a reader sees the old file or the new one, never half of it."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, boxes, allow_pickle=False)


def read_box_array(path: Path) -> npt.NDArray:
    """The array of an npy file as it is; nothing in it is executed, no more is allocated than the file has bytes.

    Raises:
        UserError: missing, or not one array in an npy file.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: not found; run 'python -m internvl_chat npy --root ROOT' (generate_npy_bboxes.py) to write it"
        )
    try:
        with path.open("rb") as file:
            is_archive = file.read(2) == _ZIP_MAGIC
        # Mapped first: a header that promises more rows than there are bytes is refused before memory is taken.
        boxes = None if is_archive else np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except _NPY_FAULTS as error:
        raise UserError(f"{path}: is not a readable npy file ({error}); write it again with --overwrite") from error
    if boxes is None:
        raise UserError(f"{path}: is an archive of arrays, expected one array; write it again with --overwrite")
    return boxes


def load_boxes(path: Path) -> BoxArray:
    """Read `object_bboxes.npy`.

    Returns:
        [T, 4] int64, x1 y1 x2 y2 in thousandths.
    Raises:
        UserError: missing, not an npy array of integers [T, 4], or values outside 0 to 1000.
    """
    boxes = read_box_array(path)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "iu":
        raise UserError(f"{path}: expected an integer array [T, 4], got {boxes.dtype} {list(boxes.shape)}")
    if boxes.size and (boxes.min() < 0 or boxes.max() > BOX_SCALE):
        raise UserError(
            f"{path}: expected thousandths from 0 to {BOX_SCALE}, got {boxes.min()} to {boxes.max()}; "
            "boxes in pixels are converted by generate_npy_bboxes.py"
        )
    return boxes.astype(np.int64)
