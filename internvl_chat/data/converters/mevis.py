"""MeViS: expressions about one object or several of a folder of frames, whose masks become boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from internvl_chat.contracts import UserError
from internvl_chat.data.converters.forms.conversion import Conversion
from internvl_chat.data.converters.forms.described import (
    Box,
    Described,
    Faults,
    ObjectBoxes,
    field,
    line_of,
    path_under,
    records_of,
)
from internvl_chat.files import read_json, read_text

EXPRESSIONS, MASKS, FRAMES = "meta_expressions.json", "mask_dict.json", "JPEGImages"


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """A record an expression of a split's folder, such as `train`: a track for each object that it names.

    The expression is the answer. A mask that is null or empty says that the object is not to be seen.

    Raises:
        UserError: all expressions that cannot be used, by line.
    """
    path = source / EXPRESSIONS
    videos, masks = field(read_json(path), "videos", dict, str(path)), read_json(source / MASKS)
    if not isinstance(masks, dict):
        raise UserError(f"{source / MASKS}: expected an object with a list of masks an annotation")
    text, faults, found = read_text(path), Faults(options.faults), []
    tracks: dict[str, ObjectBoxes] = {}
    for video_id, video in videos.items():
        where = f"{path}:{line_of(text, video_id)}: {video_id}"
        with faults.gathered():
            shown = path_under(source / FRAMES, video_id, where)
            num_frames = len(field(video, "frames", list, where))
            for number, expression in field(video, "expressions", dict, where).items():
                here = f"{where}, expression {number}"
                with faults.gathered():
                    said = field(expression, "exp", str, here)
                    ids = [str(i) for i in field(expression, "anno_id", list, here)]
                    if not ids:
                        raise UserError(f"{here}: names no annotation")
                    for annotation in ids:
                        if annotation not in tracks:
                            tracks[annotation] = _boxes(masks, annotation, num_frames, source / MASKS, here)
                    objects = tuple(tracks[annotation] for annotation in ids)
                    name, size_px = f"{video_id}-{number}", _size_of(masks, ids, here)
                    found.append(Described(name, here, shown, objects, (said,), size_px=size_px, num_frames=num_frames))
    yield from records_of(found, options.root, options.question, faults)


def _size_of(masks: Mapping[str, Any], ids: Sequence[str], where: str) -> tuple[int, int] | None:
    """Width and height in pixels that the masks of these annotations say; None where all of them are empty.

    Raises:
        UserError: they say several.
    """
    sizes = {tuple(run["size"]) for annotation in ids for run in masks[annotation] if run is not None}
    if len(sizes) > 1:
        raise UserError(f"{where}: its masks are of {len(sizes)} sizes: expected one")
    return next(((width, height) for height, width in sizes), None)


def _boxes(masks: Mapping[str, Any], annotation: str, num_frames: int, path: Path, where: str) -> ObjectBoxes:
    runs = masks.get(annotation)
    if not isinstance(runs, list) or len(runs) != num_frames:
        told = "no list of masks" if not isinstance(runs, list) else f"{len(runs)} masks"
        raise UserError(f"{where}: {path} has {told} for annotation {annotation}, expected {num_frames}, one a frame")
    boxes: dict[int, Box] = {}
    for frame, run in enumerate(runs):
        if run is not None and (box := _box_of_mask(run, f"{path}: annotation {annotation}, frame {frame}")):
            boxes[frame] = box
    return ObjectBoxes("object", boxes, "xywh", says_all=True)


def _box_of_mask(run: Any, where: str) -> Box | None:
    """x y w h in pixels of the smallest box around a mask in COCO's run lengths; None of an empty one."""
    size, counts = field(run, "size", list, where), field(run, "counts", (str, list), where)
    if len(size) != 2 or not all(type(v) is int and 0 < v < 2**15 for v in size):
        raise UserError(f"{where}: 'size' is {size!r:.80}: expected height and width")
    if isinstance(counts, str) and not _is_sound(counts, size[0] * size[1]):
        raise UserError(f"{where}: 'counts' are no run lengths of {size[0]} x {size[1]} pixels")
    if isinstance(counts, list):
        if not all(type(v) is int and v >= 0 for v in counts) or sum(counts) != size[0] * size[1]:
            raise UserError(f"{where}: 'counts' do not add up to {size[0]} x {size[1]} pixels")
        run = coco_mask.frPyObjects({"size": size, "counts": counts}, *size)
    x, y, w, h = coco_mask.toBbox(run).tolist()
    return (x, y, w, h) if w > 0 and h > 0 else None


def _is_sound(counts: str, num_pixels: int) -> bool:
    """Whether a compressed string decodes to runs that fill the picture: pycocotools writes past its end otherwise.

    Source: COCO's maskApi, `rleFrString`: six bits a character, the lowest five data, differences to two runs before.
    """
    runs: list[int] = []
    at = 0
    while at < len(counts):
        value, shift, more = 0, 0, True
        while more:
            if at == len(counts) or not 48 <= ord(counts[at]) < 112 or shift > 30:
                return False
            bits = ord(counts[at]) - 48
            value |= (bits & 0x1F) << shift
            more, shift, at = bool(bits & 0x20), shift + 5, at + 1
            if not more and bits & 0x10:
                value |= -1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return all(run >= 0 for run in runs) and sum(runs) == num_pixels
