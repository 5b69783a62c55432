"""A CSV with a box a row, as scripts and annotation tools export them: the header names the columns."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from internvl_chat.contracts import UserError
from internvl_chat.data.converters.forms.conversion import Conversion
from internvl_chat.data.converters.forms.described import (
    Box,
    Described,
    Faults,
    ObjectBoxes,
    interpolated,
    number_of,
    path_under,
    records_of,
)
from internvl_chat.data.converters.forms.rows import ObjectRows, RowsOfObject
from internvl_chat.data.records.names import DEFAULT_NAME
from internvl_chat.files import read_text

# The columns of a box by what they mean; the first set that the header has counts.
_ORDERS = {"xyxy": ("x1", "y1", "x2", "y2"), "xywh": ("x", "y", "w", "h"), "centre": ("cx", "cy", "w", "h")}
_READ = {"video", "object", "label", "frame", "caption", *(name for names in _ORDERS.values() for name in names)}
_UNITS = {"pixels": 1.0, "unit": 1.0, "percent": 0.01, "thousandths": 0.001}


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """A record a caption: rows with `video`, `frame`, a box, and maybe `object` (an id), `label` and `caption`.

    A box is x1 y1 x2 y2, x y w h, or cx cy w h (its centre), whatever columns there are. An object's id is
    `<video>-<object>`, the key of `--captions`; its captions may stand on any of its rows, and where there is none its
    label is the answer. Zeros, or four empty cells, say that the object is absent: between key frames, up to the next
    box.

    Raises:
        UserError: columns are missing, or all rows that are none and objects of which nothing is said, by line.
    """
    text = read_text(source)
    header = text.partition("\n")[0]
    # Spreadsheets of many countries separate by semicolons, and what is copied from one by tabs.
    apart = next((mark for mark in ",;\t" if mark in header), ",")
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=apart, skipinitialspace=True, strict=True)
    columns = [name.strip() for name in rows.fieldnames or ()]
    rows.fieldnames = columns
    if twice := [name for name, count in Counter(columns).items() if count > 1 and name in _READ]:
        raise UserError(f"{source}:1: has the column {twice[0]!r} twice: expected once, or nobody knows which counts")
    order = next((order for order, names in _ORDERS.items() if set(names) <= set(columns)), None)
    if order is None or not {"video", "frame"} <= set(columns):
        raise UserError(
            f"{source}:1: has the columns {columns!r:.120}: expected video, frame, and x1 y1 x2 y2, x y w h or "
            "cx cy w h"
        )
    objects = ObjectRows[tuple[Path, str]](options.faults)
    try:
        for row in rows:
            where = f"{source}:{rows.line_num}"
            with objects.row():
                key, label = _of_row(row, options.root, where)
                with objects.of(key, f"object {key[1]!r}", where) as one:
                    cells = {name: row[name] for name in _ORDERS[order]}
                    # As spreadsheets write a frame without the object.
                    is_empty = not any(cell.strip() for cell in cells.values())
                    sides = [0.0 if is_empty else number_of(cell, f"{where}: {name}") for name, cell in cells.items()]
                    box = _corners(sides, order, options.unit)
                    one.put(_frame_of(row["frame"], options.first_frame, where), box, label, where)
                    caption = (row.get("caption") or "").strip()
                    if caption and caption not in one.texts:
                        one.texts.append(caption)
    except csv.Error as error:
        raise UserError(f"{source}:{rows.line_num}: is no CSV ({error})") from error
    if not objects and not options.faults:
        raise UserError(f"{source}: holds no records: no row below the header")
    found, faults = [], Faults(options.faults)
    for (video, name), one in objects.sound().items():
        with faults.gathered():
            filled = _filled(one) if options.interpolate else one.boxes
            unit = "pixels" if options.unit == "pixels" else "unit"
            thing = ObjectBoxes(one.label or DEFAULT_NAME, filled, "xyxy", unit, says_all=options.interpolate)
            texts = tuple(one.texts or [one.label])
            found.append(Described(f"{video.stem}-{name}", one.first_at, video, (thing,), texts))
    yield from records_of(found, options.root, options.question, faults)


def _filled(one: RowsOfObject) -> dict[int, Box]:
    """Boxes on the frames between key frames; none from a row without a box up to the next one with a box.

    Raises:
        UserError: the object is gone at a key frame, and the frame before has no box: nobody says when it left.
    """
    seen = {frame: (x, y, z, w) for frame, (x, y, z, w) in one.boxes.items() if z > x and w > y}
    until = dict[int, int]()
    for gone in sorted(one.boxes.keys() - seen.keys()):
        last = max((frame for frame in seen if frame < gone), default=gone)
        if gone > last + 1 and last not in until:
            raise UserError(
                f"{one.first_at}: {one.called} has a box on frame {last} and none on frame {gone}, counted from 0: "
                f"expected a row with its last box, on frame {gone - 1} or where it leaves, and the row without a box "
                "right behind"
            )
        until[last] = last
    return interpolated(seen, {last: end for last, end in until.items() if last in seen})


def _frame_of(value: str, first_frame: int, where: str) -> int:
    """The number of a row's frame, counted from 0."""
    frame = number_of(value, f"{where}: frame") - first_frame
    if frame < 0 or not frame.is_integer():
        raise UserError(f"{where}: frame {value!r} is expected to be whole, from {first_frame}")
    return int(frame)


def _of_row(row: Mapping[str | None, Any], root: Path, where: str) -> tuple[tuple[Path, str], str]:
    """The video and the object that a row is about, and the object's label, empty where the row has none."""
    if None in row or None in row.values():
        raise UserError(f"{where}: has more or fewer values than the header has columns")
    video = path_under(root, row["video"], where)
    name = str(row.get("object", "0")).strip()
    if not name:
        raise UserError(f"{where}: 'object' is empty: expected which object of the video the box is of")
    return (video, name), str(row.get("label") or "").strip()


def _corners(values: list[float], order: str, unit: str) -> Box:
    """x1 y1 x2 y2 in pixels, or in fractions of the picture's sides."""
    x, y, z, w = (value * _UNITS[unit] for value in values)
    if order == "xyxy":
        return x, y, z, w
    return (x, y, x + z, y + w) if order == "xywh" else (x - z / 2, y - w / 2, x + z / 2, y + w / 2)
