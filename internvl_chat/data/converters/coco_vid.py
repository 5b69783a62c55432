"""COCO's form for videos, as TAO and many tools write it: every instance becomes a record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    path_under,
    records_of,
)
from internvl_chat.data.converters.forms.rows import ObjectRows
from internvl_chat.data.converters.forms.stated_sizes import check_stated_size
from internvl_chat.data.media.sources import frame_files
from internvl_chat.files import read_json

# How an instance is told from others of its video.
_INSTANCE = ("instance_id", "track_id")


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """A record an instance: `images` are frames (`file_name` under `root`), `annotations` have `bbox`, x y w h in
    pixels, and `instance_id` or `track_id`.

    An object's id is `<video>-<instance>`, the key of `--captions`; without a caption its category is the answer.

    Raises:
        UserError: all images and annotations that cannot be used, by their ids.
    """
    content = read_json(source)
    where = str(source)
    names = {
        field(entry, "id", int, where): field(entry, "name", str, where)
        for entry in field(content, "categories", list, where)
    }
    frames = _frames(field(content, "images", list, where), options.root, where, Faults(options.faults))
    objects = ObjectRows[tuple[Path, int]](options.faults)
    for number, annotation in enumerate(field(content, "annotations", list, where), start=1):
        here = f"{source}: annotation {number}"
        with objects.row():
            image = field(annotation, "image_id", int, here)
            key_name = next((key for key in _INSTANCE if key in annotation), _INSTANCE[0])
            instance = field(annotation, key_name, int, here)
            if image not in frames:
                raise UserError(f"{here}: names image {image}, which is not in the file or cannot be used")
            folder, frame = frames[image]
            with objects.of((folder, instance), f"instance {instance}", here) as one:
                category = field(annotation, "category_id", int, here)
                if category not in names:
                    raise UserError(f"{here}: names category {category}, which is not in the file")
                one.put(frame, box_of(annotation.get("bbox"), here), names[category], here)
    if not objects and not options.faults:
        raise UserError(f"{source}: holds no records: no annotations")
    found = []
    for (folder, instance), one in objects.sound().items():
        thing = ObjectBoxes(one.label, one.boxes, "xywh")
        told = f"{source}: instance {instance} of {folder.name}"
        found.append(Described(f"{folder.name}-{instance}", told, folder, (thing,), (thing.name,)))
    yield from records_of(found, options.root, options.question, Faults(options.faults))


def _frames(images: list[Any], root: Path, where: str, faults: Faults) -> Mapping[int, tuple[Path, int]]:
    """The folder of each image and its number among the folder's pictures, by the image's id.

    A folder is a video: pictures of two videos in one folder would be one, with both's objects under one number.
    """
    numbers: dict[Path, dict[str, int]] = {}
    video_of: dict[Path, Any] = {}
    # Where boxes were counted in another size, no image is to be used.
    broken: set[Path] = set()
    frames = {}
    for entry in images:
        with faults.gathered():
            image = field(entry, "id", int, where)
            path = path_under(root, field(entry, "file_name", str, where), f"{where}: image {image}")
            folder = path.parent
            if folder not in numbers:
                numbers[folder] = {file.name: at for at, file in enumerate(frame_files(folder))}
                if path.name in numbers[folder]:
                    broken.add(folder)
                    check_stated_size(path, (entry.get("width"), entry.get("height")), f"{where}: image {image}")
                    broken.remove(folder)
            if folder in broken:
                continue
            if path.name not in numbers[folder]:
                raise UserError(f"{where}: image {image}: {path} is not there")
            video = entry.get("video_id")
            if video is not None and video_of.setdefault(folder, video) != video:
                raise UserError(
                    f"{where}: image {image} is of video {video}, and others in {folder} are of {video_of[folder]}: "
                    "expected a folder a video"
                )
            frames[image] = (folder, numbers[folder][path.name])
    return frames
