"""HC-STVG v2: one person of a video, described by a sentence, with a box on each frame of the described part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from internvl_chat.contracts import UserError
from internvl_chat.data.converters.forms.conversion import Conversion
from internvl_chat.data.converters.forms.described import (
    Described,
    Faults,
    ObjectBoxes,
    box_of,
    field,
    line_of,
    named_once,
    path_under,
    records_of,
)
from internvl_chat.files import read_json, read_text

_NUMBER = (int, float)


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """A record a video of `trainv2.json` or `valv2.json`; videos may lie anywhere under `root`.

    `bbox` has x y w h in pixels from frame `st_frame` on, which counts from 1; `img_size` is height and width.

    Raises:
        UserError: all entries that are none, by line, or whose video is not there.
    """
    content = read_json(source)
    if not isinstance(content, dict) or not content:
        raise UserError(f"{source}: holds no records: expected an object with an entry a video")
    text, faults, found = read_text(source), Faults(options.faults), []
    files = (Path(folder) / name for folder, _, names in os.walk(options.root) for name in names)
    lying = named_once(files, lambda file: file.name)
    for name, entry in content.items():
        where = f"{source}:{line_of(text, name)}: {name}"
        with faults.gathered():
            size = field(entry, "img_size", list, where)
            if len(size) != 2:
                raise UserError(f"{where}: 'img_size' is {size!r:.80}: expected height and width")
            height_px, width_px = size
            first = field(entry, "st_frame", int, where) - 1
            rows = field(entry, "bbox", list, where)
            clip_s = (float(field(entry, "st_time", _NUMBER, where)), float(field(entry, "ed_time", _NUMBER, where)))
            boxes = {first + number: box_of(row, where) for number, row in enumerate(rows)}
            found.append(
                Described(
                    Path(name).stem,
                    where,
                    lying(name, where) or path_under(options.root, name, where),
                    (ObjectBoxes("person", boxes, "xywh"),),
                    (field(entry, "English", str, where),),
                    clip_s,
                    (width_px, height_px),
                    field(entry, "img_num", int, where),
                )
            )
    yield from records_of(found, options.root, options.question, faults)
