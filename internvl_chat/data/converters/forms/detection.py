"""Boxes of other projects to records: COCO's detection sets, and RefCOCO's phrases with a region each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from internvl_chat.boxes import BoxArray, is_absent
from internvl_chat.constants import IMAGE_PLACEHOLDER, REF_END, REF_START
from internvl_chat.contracts import UserError
from internvl_chat.data.checking.conversations import box_row, shortened
from internvl_chat.data.converters.forms.collecting import converted
from internvl_chat.data.media.pictures import picture_size
from internvl_chat.data.records.box_evidence import judged_thousandths
from internvl_chat.data.records.names import check_name
from internvl_chat.files import RawRecord, parse_json, read_json, read_text, split_records
from internvl_chat.grounding import (
    DETECTION_QUESTION,
    LabelledBox,
    ReferredRegion,
    box_text,
    detection_answer,
    nameless_id,
    referring_question,
)

_Entry = TypeVar("_Entry")


def coco_records(source: Path, root: Path, faults: list[UserError] | None = None) -> Iterator[dict[str, Any]]:
    """A record a picture that shows an object; crowds and boxes without area inside the picture are left out.

    Classes stand in the order of `categories`, their boxes in the order of `annotations`, clamped to the picture.

    Args:
        faults: gets what is wrong with classes, pictures and annotations; None lets the first fault rise. A picture is
            left out with its annotations where one of them has a fault, since its record asks for all objects.
    Raises:
        UserError: not a COCO file, an annotation of a picture or class that it does not list, a box beyond its picture
            or in fractions, or a picture that is shown at another size than it says.
    """
    content = read_json(source)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in _LISTS):
        raise UserError(f"{source}: expected an object with the lists {', '.join(_LISTS)}")
    names = _by_id(content["categories"], lambda entry: _class_name(entry, source), source, faults)
    pictures = _by_id(content["images"], lambda entry: entry, source, faults)
    objects: dict[int, dict[int, list[LabelledBox]]] = defaultdict(lambda: defaultdict(list))
    with_fault: set[int] = set()

    def place(annotation: Any) -> Iterator[dict[str, Any]]:
        picture_id = _field(annotation, "image_id", int, source)
        try:
            category = _field(annotation, "category_id", int, source)
            if picture_id not in pictures or category not in names:
                raise UserError(
                    f"{source}: {shortened(annotation)} is of image {picture_id} and category {category}: "
                    "expected ones that 'images' and 'categories' list"
                )
            picture, name = pictures[picture_id], names[category]
            if picture is None or annotation.get("iscrowd"):
                return
            box = _box(annotation, picture, source)
        except UserError:
            with_fault.add(picture_id)
            raise
        if not is_absent(box):
            x1, y1, x2, y2 = box.tolist()
            objects[picture_id][category].append(LabelledBox(name or "", (x1, y1, x2, y2)))
        yield from ()

    def convert(picture_id: int) -> Iterator[dict[str, Any]]:
        picture = pictures[picture_id]
        if picture is None:
            return
        if unnamed := [category for category in objects[picture_id] if names[category] is None]:
            raise UserError(
                f"{source}: {shortened(picture)}: shows objects of category {unnamed[0]}, which has a fault"
            )
        path = root / _field(picture, "file_name", str, source)
        _check_shown_size(path, _size_px(picture, source), f"{source}: {shortened(picture)}")
        shown = [item for category in names for item in objects[picture_id][category]]
        yield _record(picture, detection_answer(shown), source)

    yield from converted(content["annotations"], place, faults)
    sound = [picture_id for picture_id in pictures if objects[picture_id] and picture_id not in with_fault]
    yield from converted(sound, convert, faults)


def _by_id(
    entries: Sequence[Any], read: Callable[[Any], _Entry], source: Path, faults: list[UserError] | None
) -> dict[int, _Entry | None]:
    """The entries of a list by their ids; None of one that cannot be read, or whose id comes twice."""
    found: dict[int, _Entry | None] = {}

    def add(entry: Any) -> Iterator[dict[str, Any]]:
        entry_id = _field(entry, "id", int, source)
        is_first = entry_id not in found
        found[entry_id] = None
        if not is_first:
            raise UserError(f"{source}: {shortened(entry)}: 'id' {entry_id} comes twice, expected an id of its own")
        found[entry_id] = read(entry)
        yield from ()

    list(converted(entries, add, faults))
    return found


def _class_name(entry: Any, source: Path) -> str:
    return check_name(_field(entry, "name", str, source), str(source))


def _check_shown_size(path: Path, stated: tuple[int, int], where: str) -> None:
    """Refuse a picture that is there and is shown at another size than its boxes were counted in."""
    if not path.is_file():
        return
    size, _ = picture_size(path)
    if size != stated:
        raise UserError(
            f"{where}: says {stated[0]} x {stated[1]}, the picture is shown at {size[0]} x {size[1]}: boxes belong to "
            "one of them"
        )


def refcoco_records(source: Path, root: Path, faults: list[UserError] | None = None) -> Iterator[dict[str, Any]]:
    """A record a phrase, `{"image", "sent", "bbox": [x1, y1, x2, y2] in pixels, "width", "height"}`.

    One without an id is called as `score-boxes` calls it, so that its answer can be held against the source itself,
    whose boxes are not rounded.

    Raises:
        UserError: a line is no such record, its box has no area inside the picture or reaches beyond it, or its picture
            is shown at another size than it says.
    """

    def convert(raw: RawRecord) -> Iterator[dict[str, Any]]:
        where = f"{source}:{raw.line}"
        entry = parse_json(raw.text, where)
        image = _field(entry, "image", str, where)
        region = ReferredRegion.of_record(entry, where)
        phrase, (width_px, height_px) = region.phrase, region.size_px
        _check_shown_size(root / image, region.size_px, where)
        box = judged_thousandths(region.corners_px, region.size_px, where)
        if is_absent(box):
            raise UserError(f"{where}: bbox {entry['bbox']} in {width_px} x {height_px} pixels has no area")
        yield {
            "id": entry.get("id", nameless_id(raw.line)),
            "image": image,
            "width": width_px,
            "height": height_px,
            "conversations": [
                {"from": "human", "value": f"{IMAGE_PLACEHOLDER}\n{referring_question(phrase)}"},
                {"from": "gpt", "value": f"{REF_START}{phrase}{REF_END}{box_text([box.tolist()])}"},
            ],
        }

    yield from converted(split_records(read_text(source), source), convert, faults)


_LISTS = ("images", "annotations", "categories")


def _field(entry: Any, key: str, kind: type, source: object) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    if type(value) is not kind:
        raise UserError(f"{source}: {shortened(entry)}: {key!r} is {shortened(value)}: expected {_KINDS[kind]}")
    return value


_KINDS = {int: "a whole number", str: "a text"}


def _box(annotation: Mapping[str, Any], picture: Mapping[str, Any], source: Path) -> BoxArray:
    """The annotation's box [4] in thousandths."""
    row = box_row(annotation.get("bbox"))
    size_px = _size_px(picture, source)
    where = f"{source}: {shortened(annotation)}"
    if row is None or not np.isfinite(row).all():
        raise UserError(f"{where}: expected 'bbox' as x y w h in pixels")
    x, y, w, h = row
    return judged_thousandths((x, y, x + w, y + h), size_px, where)


def _size_px(picture: Mapping[str, Any], source: object) -> tuple[int, int]:
    width_px, height_px = (_field(picture, key, int, source) for key in ("width", "height"))
    if width_px < 1 or height_px < 1:
        raise UserError(f"{source}: {shortened(picture)}: expected 'width' and 'height' in pixels")
    return width_px, height_px


def _record(picture: Mapping[str, Any], answer: str, source: Path) -> dict[str, Any]:
    width_px, height_px = _size_px(picture, source)
    return {
        "id": picture["id"],
        "image": _field(picture, "file_name", str, source),
        "width": width_px,
        "height": height_px,
        "conversations": [
            {"from": "human", "value": f"{IMAGE_PLACEHOLDER}\n{DETECTION_QUESTION}"},
            {"from": "gpt", "value": answer},
        ],
    }
