"""Label Studio's JSON export of video rectangles: every region becomes a record; key frames are filled in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote

from internvl_chat.contracts import UserError
from internvl_chat.data.converters.forms.conversion import Conversion
from internvl_chat.data.converters.forms.described import (
    Box,
    Described,
    Faults,
    ObjectBoxes,
    field,
    interpolated,
    path_under,
    records_of,
)
from internvl_chat.files import parse_json, read_text, split_records

_NUMBER = (int, float)


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """A record a `videorectangle`: key frames from 1 with x y width height in percent, the last one before an absence
    marked by `enabled: false`.

    The video is the file of its name under `root`, since Label Studio keeps an address of its own. An object's id is
    `<video>-<region>`, the key of `--captions`; without a caption its label is the answer.

    Raises:
        UserError: all tasks that cannot be used, by line.
    """
    faults, found = Faults(options.faults), []
    for raw in split_records(read_text(source), source):
        where = f"{source}:{raw.line}"
        with faults.gathered():
            task = parse_json(raw.text, where)
            video = path_under(options.root, _video(field(task, "data", dict, where), where), where)
            for annotation in field(task, "annotations", list, where):
                if isinstance(annotation, dict) and annotation.get("was_cancelled") is True:
                    continue
                for region in field(annotation, "result", list, where):
                    if isinstance(region, dict) and region.get("type") == "videorectangle":
                        with faults.gathered():
                            found.append(_described(region, video, where))
    if not found and not options.faults:
        raise UserError(f"{source}: holds no records: no 'videorectangle' in it")
    yield from records_of(found, options.root, options.question, faults)


def _video(data: dict[str, Any], where: str) -> str:
    """The name of the one video of a task: `/data/upload/3/1f2e3d4c-clip.mp4` is an upload of `clip.mp4`."""
    address = next((value for key, value in data.items() if key.startswith("video") and isinstance(value, str)), "")
    name = PurePath(unquote(address.partition("?")[0])).name
    if not name:
        raise UserError(f"{where}: 'data' is {data!r:.80}: expected 'video' with a file's address")
    mark, _, rest = name.partition("-")
    is_upload = "/upload/" in address and len(mark) == 8 and rest
    return rest if is_upload else name


def _described(region: dict[str, Any], video: Path, where: str) -> Described:
    value = field(region, "value", dict, where)
    labels = field(value, "labels", list, where)
    if not labels or not isinstance(labels[0], str) or not labels[0].strip():
        raise UserError(f"{where}: 'labels' is {labels!r:.80}: expected a label")
    boxes: dict[int, Box] = {}
    off: list[int] = []
    for key_frame in field(value, "sequence", list, where):
        frame = field(key_frame, "frame", int, where) - 1
        if field({"rotation": 0, **key_frame}, "rotation", _NUMBER, where):
            raise UserError(f"{where}: the box on frame {frame + 1} is turned: expected upright ones")
        x, y, w, h = (field(key_frame, key, _NUMBER, where) / 100 for key in ("x", "y", "width", "height"))
        boxes[frame] = (x, y, w, h)
        if key_frame.get("enabled") is False:
            off.append(frame)
    last = max(boxes, default=0)
    num_frames = value.get("framesCount")
    until = {frame: frame for frame in off}
    if type(num_frames) is int and last not in off and last < num_frames <= 1_000_000:
        # The last key frame holds to the end where nothing says otherwise.
        until[last] = num_frames - 1
    thing = ObjectBoxes(labels[0], interpolated(boxes, until) if boxes else {}, "xywh", "unit", says_all=True)
    name = f"{video.stem}-{region.get('id', 0)}"
    frames = num_frames if type(num_frames) is int else None
    return Described(name, f"{where}: region {region.get('id', 0)}", video, (thing,), (labels[0],), num_frames=frames)
