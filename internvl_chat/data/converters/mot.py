"""MOT Challenge folders, also as CVAT and others export them: every object of a sequence becomes a record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from pathlib import Path
from typing import Any

from internvl_chat.contracts import UserError
from internvl_chat.data.converters.forms.conversion import Conversion
from internvl_chat.data.converters.forms.described import Described, Faults, ObjectBoxes, number_of, records_of
from internvl_chat.data.converters.forms.rows import ObjectRows
from internvl_chat.data.media.sources import frame_files
from internvl_chat.files import read_text

TRUTH, LABELS, INFO, FRAMES = "gt/gt.txt", "gt/labels.txt", "seqinfo.ini", "img1"
# Values of a row at least, and of one that says its flag and class; what is taken where it does not.
_FEWEST, _WITH_CLASS = 6, 8
_UNSAID = ("1", "0")
# Classes of MOT16 to 20 that are people who walk or stand.
_PEOPLE = {1: "person", 2: "person", 7: "person"}


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """A record an object of each `<sequence>/gt/gt.txt`: frame and id from 1, x y w h in pixels, flag, class.

    Rows with flag 0 are ignored, as the benchmark does. Names come from `gt/labels.txt`, a class a line; without it
    people are called so and everything else `object`. An object's id is `<sequence>-<id>`, the key of `--captions`;
    without a caption its name is the answer.

    Raises:
        UserError: no sequence found, all lines that are no rows, by line, or pictures whose numbers have gaps.
    """
    folders = sorted({path.parents[1] for pattern in (TRUTH, f"*/{TRUTH}") for path in source.glob(pattern)})
    if not folders:
        raise UserError(f"{source}: holds no sequence with {TRUTH}; is it the dataset's folder?")
    faults, found = Faults(options.faults), []
    for folder in folders:
        with faults.gathered():
            labels = read_text(folder / LABELS).split("\n") if (folder / LABELS).is_file() else []
            named = {number: label.strip() for number, label in enumerate(labels, start=1) if label.strip()}
            frames = frame_files(folder / FRAMES)
            _refuse_gaps(folder / FRAMES, frames)
            size_px = _stated_size(folder / INFO)
            for key, thing in _objects(folder / TRUTH, named, options.faults).items():
                where, name, shown = f"{folder / TRUTH}: object {key}", f"{folder.name}-{key}", folder / FRAMES
                sizes: dict[str, Any] = {"size_px": size_px, "num_frames": len(frames)}
                found.append(Described(name, where, shown, (thing,), (thing.name,), **sizes))
    yield from records_of(found, options.root, options.question, faults)


def _stated_size(path: Path) -> tuple[int, int] | None:
    """Width and height in pixels that a sequence's `seqinfo.ini` says, if it does; tools write it in many ways."""
    if not path.is_file():
        return None
    parser = ConfigParser()
    try:
        parser.read_string(read_text(path), str(path))
        width, height = (float(parser.get("Sequence", key)) for key in ("imWidth", "imHeight"))
    except (ConfigParserError, ValueError):
        return None
    return (round(width), round(height)) if width > 0 and height > 0 else None


def _refuse_gaps(folder: Path, frames: Sequence[Path]) -> None:
    """Frame n of the truth is the picture of that number, and so the n-th one must have it."""
    numbers = [int(file.stem) if file.stem.isdecimal() else -1 for file in frames]
    for place, (number, file) in enumerate(zip(numbers, frames, strict=True), start=1):
        if number != place:
            raise UserError(f"{folder}: picture {place} is {file.name}: expected numbers from 1 without a gap")


def _objects(path: Path, labelled: dict[int, str], left_out: list[UserError]) -> dict[int, ObjectBoxes]:
    objects = ObjectRows[int](left_out)
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        with objects.row():
            cells = line.split(",")
            if len(cells) < _FEWEST:
                raise UserError(f"{where}: has {len(cells)} values, expected frame, id, x, y, w, h, flag, class, ...")
            key = number_of(cells[1], where)
            if not key.is_integer():
                raise UserError(f"{where}: id {key:g} is expected to be whole")
            with objects.of(int(key), f"object {key:g}", where) as one:
                whole = [*cells, *_UNSAID[len(cells) - _FEWEST :]]
                frame, _, x, y, w, h, flag, kind = (number_of(cell, where) for cell in whole[:_WITH_CLASS])
                if not kind.is_integer():
                    raise UserError(f"{where}: class {kind:g} is expected to be whole")
                if not frame.is_integer() or frame < 1:
                    raise UserError(f"{where}: frame {frame:g} is expected to be whole, from 1")
                if flag:
                    if labelled and len(cells) >= _WITH_CLASS and int(kind) not in labelled:
                        raise UserError(f"{where}: class {kind:g} is not in {LABELS}, which has {len(labelled)}")
                    one.put(int(frame) - 1, (x, y, w, h), (labelled or _PEOPLE).get(int(kind), "object"), where)
    # An object whose rows are all ignored has no box.
    shown = {key: one for key, one in objects.sound().items() if one.boxes}
    return {key: ObjectBoxes(one.label, one.boxes, "xywh") for key, one in sorted(shown.items())}
