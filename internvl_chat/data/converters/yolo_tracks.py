"""YOLO's text files of tracked boxes, one a frame: every track becomes a record."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from internvl_chat.contracts import UserError
from internvl_chat.data.converters.forms.conversion import Conversion
from internvl_chat.data.converters.forms.described import (
    Described,
    Faults,
    ObjectBoxes,
    named_once,
    number_of,
    records_of,
)
from internvl_chat.data.converters.forms.rows import ObjectRows
from internvl_chat.data.media.sources import videos_below
from internvl_chat.files import read_text

NAMES = "classes.txt"
_FRAME_FILE = re.compile(r"(?P<video>.+)_(?P<frame>[0-9]{1,9})\.txt")


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """A record a track of a folder of `<video>_<frame>.txt`, frames from 1: `class cx cy w h [confidence] id`, in
    fractions of the picture's sides, as `track` with `save_txt` writes them.

    The video is the file of this name under `root`; `classes.txt` in the folder has a class a line. An object's id is
    `<video>-<id>`, the key of `--captions`; without a caption its class is the answer.

    Raises:
        UserError: no such files, or all lines that are none, by line.
    """
    files = [(match, path) for path in sorted(source.glob("*.txt")) if (match := _FRAME_FILE.fullmatch(path.name))]
    if not files:
        raise UserError(f"{source}: holds no records: no <video>_<frame>.txt; give the folder of label files")
    names = read_text(source / NAMES).split("\n") if (source / NAMES).is_file() else []
    videos = named_once(videos_below(options.root), lambda path: path.stem)
    objects = ObjectRows[tuple[str, int]](options.faults)
    for match, path in files:
        frame = int(match["frame"]) - 1
        for number, line in enumerate(read_text(path).split("\n"), start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            with objects.row():
                *cells, last = line.split()
                track = number_of(last, where)
                if len(cells) not in (5, 6) or not track.is_integer():
                    raise UserError(f"{where}: expected class cx cy w h [confidence] id, got {line.strip()!r:.60}")
                with objects.of((match["video"], int(track)), f"track {track:g}", where) as one:
                    kind, x, y, w, h = (number_of(cell, where) for cell in cells[:5])
                    one.put(frame, (x - w / 2, y - h / 2, w, h), _name(names, kind, where), where)
    found, faults = [], Faults(options.faults)
    for (video, track), one in objects.sound().items():
        thing = ObjectBoxes(one.label, one.boxes, "xywh", "unit")
        with faults.gathered():
            shown = videos(video, one.first_at) or options.root / f"{video}.mp4"
            found.append(Described(f"{video}-{track}", one.first_at, shown, (thing,), (thing.name,)))
    yield from records_of(found, options.root, options.question, faults)


def _name(names: list[str], number: float, where: str) -> str:
    if not number.is_integer():
        raise UserError(f"{where}: class {number:g} is expected to be whole")
    if not names:
        return "object"
    if not 0 <= number < len(names) or not names[int(number)].strip():
        raise UserError(f"{where}: class {number:g} is not in {NAMES}")
    return names[int(number)].strip()
