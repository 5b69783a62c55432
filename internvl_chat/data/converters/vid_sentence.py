"""VID-Sentence: a sentence about one object of ImageNet VID's frames, with its tube."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from internvl_chat.contracts import UserError
from internvl_chat.data.converters.forms.conversion import Conversion
from internvl_chat.data.converters.forms.described import (
    Box,
    Described,
    Faults,
    ObjectBoxes,
    box_of,
    field,
    path_under,
    records_of,
    whole_number_of,
)
from internvl_chat.files import read_json, read_text

SAMPLES, FRAMES, TUBES = "Data/VID/annSamples", "Data/VID", "Annotations/VID/tubeGt"
_OBJECTS, _SENTENCES = "_valid_list.txt", "_ann_list_v2.txt"


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """A record a sentence of every set below a folder with `Data/VID` and `Annotations/VID`.

    A set's `*_valid_list.txt` names a video and an object a line, its `*_ann_list_v2.txt` the number of such a line and
    a sentence. Tubes have x1 y1 x2 y2 in pixels on frames that count from 1.

    Raises:
        UserError: all lines that cannot be used, or it does not show whether their numbers count from 0 or from 1.
    """
    lists = sorted((source / SAMPLES).glob(f"*{_SENTENCES}"))
    if not lists:
        raise UserError(f"{source}: has no {SAMPLES}/*{_SENTENCES}: expected the folder with Data/ and Annotations/")
    faults, found = Faults(options.faults), dict[str, Described]()
    for one in (one for path in lists for one in _of_set(source, path, faults)):
        # Of several sentences about one object each is an answer of its own.
        before = found.get(one.id)
        found[one.id] = replace(before, texts=before.texts + one.texts) if before else one
    yield from records_of(list(found.values()), options.root, options.question, faults)


def _of_set(source: Path, path: Path, faults: Faults) -> Iterator[Described]:
    name = path.name.removesuffix(_SENTENCES)
    objects_path = path.with_name(f"{name}{_OBJECTS}")
    objects = [line.partition(",") for line in read_text(objects_path).splitlines()]
    said = [
        (f"{path}:{n}", *line.partition(",")[::2]) for n, line in enumerate(read_text(path).splitlines(), 1) if line
    ]
    first = _first_number([number for _, number, _ in said], len(objects), path)
    tubes: dict[str, Mapping[str, Any]] = {}
    for where, number, sentence in said:
        with faults.gathered():
            counted = whole_number_of(number)
            row = -1 if counted is None else counted - first
            if not 0 <= row < len(objects):
                raise UserError(f"{where}: {number!r:.40} is no line of {objects_path}, which has {len(objects)}")
            video, _, object_id = (part.strip() for part in objects[row])
            frames = path_under(source / FRAMES / name, video, where)
            if video not in tubes:
                tubes[video] = _tubes(path_under(source / TUBES / name, f"{video}.js", where))
            if object_id not in tubes[video]:
                raise UserError(f"{where}: {video}.js has no object {object_id!r:.40}")
            boxes = _boxes(tubes[video][object_id], f"{where}: object {object_id} of {video}.js")
            thing = ObjectBoxes("object", boxes, "xyxy")
            yield Described(f"{name}-{number.strip()}", where, frames, (thing,), (sentence.strip(),))


def _first_number(numbers: Sequence[str], num_objects: int, path: Path) -> int:
    """What the first line is called, 0 or 1: the sentences' own numbers must show it."""
    counted = set(map(whole_number_of, numbers))
    from_zero, from_one = 0 in counted, num_objects in counted
    if from_zero == from_one:
        told = "both 0 and" if from_zero else "neither 0 nor"
        raise UserError(
            f"{path}: its numbers have {told} {num_objects}, the number of objects: from where do they count?"
        )
    return int(from_one)


def _tubes(path: Path) -> dict[str, Any]:
    """The tracks of a video's objects by id."""
    annotations = field(read_json(path), "annotations", list, str(path))
    return {str(entry.get("id")): entry for entry in annotations if isinstance(entry, dict)}


def _boxes(entry: Mapping[str, Any], where: str) -> dict[int, Box]:
    boxes: dict[int, Box] = {}
    for row in field(entry, "track", list, where):
        frame = field(row, "frame", int, where)
        left, top, right, bottom = box = box_of(row.get("bbox"), f"{where}, frame {frame}")
        if right <= left or bottom <= top:
            raise UserError(f"{where}, frame {frame}: {list(box)} is no box: expected x1 y1 x2 y2")
        boxes[frame - 1] = box
    return boxes
