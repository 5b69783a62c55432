"""A CSV with a box a row, as scripts and annotation tools export them: the header names the columns."""

from __future__ import annotations

import csv
import io
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
from internvl_chat.data.records.names import DEFAULT_NAME
from internvl_chat.files import read_text

# The columns of a box by what they mean; the first set that the header has counts.
_ORDERS = {"xyxy": ("x1", "y1", "x2", "y2"), "xywh": ("x", "y", "w", "h"), "centre": ("cx", "cy", "w", "h")}
_UNITS = {"pixels": 1.0, "unit": 1.0, "percent": 0.01, "thousandths": 0.001}


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """A record a caption: rows with `video`, `frame`, a box, and maybe `object` (an id), `label` and `caption`.

    A box is x1 y1 x2 y2, x y w h, or cx cy w h (its centre), whatever columns there are. An object's id is
    `<video>-<object>`, the key of `--captions`; its captions may stand on any of its rows, and where there is none its
    label is the answer.

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
    order = next((order for order, names in _ORDERS.items() if set(names) <= set(columns)), None)
    if order is None or not {"video", "frame"} <= set(columns):
        raise UserError(
            f"{source}:1: has the columns {columns!r:.120}: expected video, frame, and x1 y1 x2 y2, x y w h or "
            "cx cy w h"
        )
    faults, boxes = Faults(), dict[tuple[Path, str], dict[int, Box]]()
    labels, lines = dict[tuple[Path, str], str](), dict[tuple[Path, str], int]()
    captions = dict[tuple[Path, str], list[str]]()
    try:
        for row in rows:
            with faults.gathered():
                where = f"{source}:{rows.line_num}"
                key, label = _of_row(row, options.root, where)
                frame = number_of(row["frame"], where) - options.first_frame
                if frame < 0 or not frame.is_integer():
                    raise UserError(
                        f"{where}: frame {row['frame']!r} is expected to be whole, from {options.first_frame}"
                    )
                if frame in boxes.setdefault(key, {}):
                    raise UserError(f"{where}: object {key[1]!r} has two boxes on frame {row['frame']}")
                boxes[key][int(frame)] = _corners(
                    [number_of(row[name], where) for name in _ORDERS[order]], order, options.unit
                )
                labels[key] = labels.get(key) or label
                said = captions.setdefault(key, [])
                said += [text for text in [(row.get("caption") or "").strip()] if text and text not in said]
                lines.setdefault(key, rows.line_num)
    except csv.Error as error:
        raise UserError(f"{source}:{rows.line_num}: is no CSV ({error})") from error
    if not boxes:
        faults.tell()
        raise UserError(f"{source}: holds no records: no row below the header")
    faults.tell()
    found = []
    for key, own in boxes.items():
        video, name = key
        filled = interpolated(own) if options.interpolate else own
        thing = ObjectBoxes(
            labels[key] or DEFAULT_NAME, filled, "xyxy", "pixels" if options.unit == "pixels" else "unit"
        )
        where = f"{source}:{lines[key]}"
        found.append(Described(f"{video.stem}-{name}", where, video, (thing,), tuple(captions[key] or [labels[key]])))
    yield from records_of(found, options.root, options.question, Faults(options.faults))


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
