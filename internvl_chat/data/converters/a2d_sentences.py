"""A2D-Sentences: a sentence about one actor of a clip, whose masks on labelled frames become boxes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from internvl_chat.contracts import UserError
from internvl_chat.data.converters.forms.conversion import Conversion
from internvl_chat.data.converters.forms.described import (
    Box,
    Described,
    Faults,
    ObjectBoxes,
    interpolated,
    path_under,
    records_of,
)
from internvl_chat.files import parse_json, read_text, split_records

if TYPE_CHECKING:
    from types import ModuleType

CLIPS, MASKS = "Release/clips320H", "text_annotations/a2d_annotation_with_instances"
_ROW = "[text, video, frame, instance]"


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """A record a sentence of a list of [text, video, frame, instance]; the clips and masks lie under `root`.

    The frames that are labelled, counted from 1 in the files' names, carry the boxes; with `interpolate` the frames
    between two of them do too. What the list says of one actor on several frames is one record.

    Raises:
        UserError: all rows that cannot be used, by line, or h5py is not installed.
    """
    faults, asked = Faults(options.faults), dict[tuple[str, str, int], str]()
    for raw in split_records(read_text(source), source):
        where = f"{source}:{raw.line}"
        with faults.gathered():
            row = parse_json(raw.text, where)
            if not isinstance(row, list) or [type(v) for v in row] != [str, str, int, int]:
                raise UserError(f"{where}: {row!r:.80}: expected {_ROW}")
            text, video, _, instance = row
            asked.setdefault((video, text, instance), where)
    found, h5py = list[Described](), _h5py()
    tracks: dict[str, dict[int, dict[int, Box]]] = {}
    for (video, text, instance), where in asked.items():
        with faults.gathered():
            clip = path_under(options.root / CLIPS, f"{video}.mp4", where)
            if video not in tracks:
                tracks[video] = _tracks(h5py, path_under(options.root / MASKS, video, where), where)
            boxes = tracks[video].get(instance, {})
            thing = ObjectBoxes("actor", interpolated(boxes) if options.interpolate and boxes else boxes, "xyxy")
            found.append(Described(f"{video}-{instance}-{len(found)}", where, clip, (thing,), (text,)))
    yield from records_of(found, options.root, options.question, faults)


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError as error:
        raise UserError("A2D-Sentences' masks are HDF5: pip install -r requirements/a2d.txt") from error
    return h5py


def _tracks(h5py: ModuleType, folder: Path, where: str) -> dict[int, dict[int, Box]]:
    """Boxes by instance and frame number from 0, of all labelled frames of a clip."""
    found: dict[int, dict[int, Box]] = {}
    paths = sorted(folder.glob("*.h5"))
    if not paths:
        raise UserError(f"{where}: {folder} holds no masks (.h5)")
    for path in paths:
        if not path.stem.isdecimal():
            raise UserError(f"{path}: expected a frame's number as its name")
        try:
            with h5py.File(path) as file:
                instances = np.atleast_1d(file["instance"][()]).ravel()
                masks = np.asarray(file["reMask"][()])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: holds no masks ({error}): expected 'instance' and 'reMask'") from error
        masks = masks[None] if masks.ndim == 2 else masks
        if masks.ndim != 3 or len(masks) != len(instances):
            raise UserError(f"{path}: masks {masks.shape} for {len(instances)} instances, expected one each")
        for instance, mask in zip(instances.tolist(), masks, strict=True):
            if box := _box_of(mask):
                found.setdefault(int(instance), {})[int(path.stem) - 1] = box
    return found


def _box_of(mask_WH: npt.NDArray[Any]) -> Box | None:
    """x1 y1 x2 y2 in pixels around a mask that is stored transposed; None of an empty one."""
    columns, rows = np.nonzero(mask_WH)
    if not len(columns):
        return None
    return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)
