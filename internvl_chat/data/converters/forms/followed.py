"""Artemis' lists, and the objects that are followed through folders of frames in those of stage 3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from internvl_chat.contracts import UserError
from internvl_chat.data.converters.forms.described import (
    Box,
    Described,
    ObjectBoxes,
    box_of,
    field,
    path_under,
)
from internvl_chat.data.media.sources import frame_files
from internvl_chat.files import read_text, split_records


def entries_of_lists(source: Path) -> Iterator[tuple[str, str, str]]:
    """The entries of a list, or of all lists of a folder, as JSON, each with its name and where it stands.

    Raises:
        UserError: the folder has no list, or one cannot be read.
    """
    paths = sorted(source.glob("[!.]*.json")) if source.is_dir() else [source]
    if not paths:
        raise UserError(f"{source}: holds no records: expected .json lists")
    for path in paths:
        number = -1
        for number, raw in enumerate(split_records(read_text(path), path)):
            yield raw.text, f"{path.stem}-{number}", f"{path}:{raw.line}"
        if number < 0 and len(paths) > 1:
            raise UserError(f"{path}: is empty: expected a list; take it out of the folder if it has none")


def followed(entry: Any, name: str, root: Path, where: str) -> Described:
    """An entry with `frame_path` under the root, and in `track_list` a box, or nothing, for each name of `frame_id`.

    The key frame's box counts too.

    Raises:
        UserError: it cannot be used, or its frames are not there.
    """
    folder = path_under(root, field(entry, "frame_path", str, where), where)
    rows, names = field(entry, "track_list", list, where), field(entry, "frame_id", list, where)
    if len(rows) != len(names):
        raise UserError(f"{where}: 'track_list' has {len(rows)} boxes for {len(names)} names of 'frame_id'")
    if not folder.is_dir():
        raise UserError(f"{where}: its frames {folder} are not there")
    numbers = {file.name: number for number, file in enumerate(frame_files(folder))}
    boxes: dict[int, Box] = {}
    for frame, row in zip([*names, entry.get("key_frame_id")], [*rows, entry.get("key_frame_box")], strict=True):
        if row:
            if not isinstance(frame, str) or frame not in numbers:
                raise UserError(f"{where}: {folder} has no frame {frame!r:.40}")
            boxes[numbers[frame]] = box_of(row, where)
    text = field(entry, "caption", str, where)
    objects = (ObjectBoxes("object", boxes, "xyxy"),)
    return Described(name, where, folder, objects, (text,), num_frames=len(numbers))
