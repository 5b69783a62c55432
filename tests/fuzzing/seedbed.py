"""A small sound dataset with every kind of file, which the mutations start from."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from internvl_chat.boxes import save_boxes
from internvl_chat.files import write_json, write_jsonl
from tests.data.checking.planted import QUESTION, talk
from tests.data.media.films import write_film

NUM_FRAMES, WIDTH_PX, HEIGHT_PX = 7, 64, 48
VIDEOS = {"mp4": "libx264", "avi": "mpeg4", "mkv": "libx264"}
BOX_LINES = "8,6,16,12\n9 6 16 12\n0,0,0,0\n1.5,2.5,10,10\n-3,-3,20,20\n60,40,30,30\n8,6,16,12\n"
# What the mutations may change, relative to the dataset's folder.
MUTABLE = (
    "meta.json",
    "lines.jsonl",
    "list.json",
    "root/chats.json",
    "root/coco.json",
    "root/cup/cup-1/cup-1.mp4",
    "root/cup/cup-1/object_bboxes.txt",
    "root/cup/cup-1/object_bboxes.npy",
    "root/other.avi",
    "root/other.mkv",
    "root/turned.mov",
    "root/uneven.webm",
    "root/moving.gif",
    "root/frames/2.png",
    "root/still.jpg",
    "root/phone.jpg",
    "root/deep.png",
    "root/still.png",
    "root/still.webp",
)


def _write_video(path: Path, codec: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(5))
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for frame in _pictures():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _pictures() -> list[np.ndarray]:
    ground = np.full((HEIGHT_PX, WIDTH_PX, 3), 40, dtype=np.uint8)
    frames = []
    for t in range(NUM_FRAMES):
        frame = ground.copy()
        frame[6:18, 8 + t : 24 + t] = (230, 60, 20)
        frames.append(frame)
    return frames


def records() -> list[dict[str, Any]]:
    """One record of each kind."""
    box = [8, 6, 24, 18]
    by_frame = {"name": "cup", "boxes": [box] * NUM_FRAMES, "unit": "pixels", "order": "xyxy", "absent": [3]}
    keys = {"name": "cup", "boxes": {"0": box, "6": box}, "unit": "pixels", "order": "xyxy"}
    keys |= {"interpolate": True, "counted_in": "stored"}
    stored = {"name": "cup", "boxes": [box], "unit": "pixels", "order": "xyxy", "counted_in": "stored"}
    by_second = {"name": "lid", "boxes": {"0": [0, 0, 0.5, 0.5]}, "by": "second", "unit": "unit", "order": "xywh"}
    return [
        {"id": "text", **talk("What is 2 + 2?", answer="4")},
        {"id": "boxed", "video": "cup-1/cup-1.mp4", **talk(QUESTION, "<video>\n")},
        {"id": "avi", "video": "other.avi", "clip": [0.2, 1.1], **talk("What moves?", "<video>\n")},
        {"id": "mkv", "video": "other.mkv", "tracks": [by_frame, by_second], **talk(QUESTION, "<video>\n")},
        {"id": "turned", "video": "turned.mov", "tracks": [keys], **talk(QUESTION, "<video>\n")},
        {"id": "uneven", "video": "uneven.webm", "clip": [0, 0.5], "tracks": [by_second], **talk("What?", "<video>\n")},
        {"id": "phone", "image": "phone.jpg", "tracks": [stored], **talk("What?", "<image>\n")},
        {"id": "deep", "image": "deep.png", **talk("What?", "<image>\n")},
        {"id": "gif", "video": "moving.gif", **talk("What moves?", "<video>\n")},
        {"id": "frames", "video": "frames", **talk("What moves?", "<video>\n")},
        {"id": 7, "image": "still.jpg", "width": 64, "height": 48, **talk("<ref>cup</ref>?", "<image>\n")},
        {"id": 8, "image": ["still.png", "still.webp"], **talk("Same?", "<image>\n<image>\n")},
    ]


def chats() -> list[dict[str, Any]]:
    """Message lists of other projects, one in each of their forms."""
    turns = [{"role": "user", "content": "<image>Where is <ref-object>?"}, {"role": "assistant", "content": "<bbox>"}]
    objects = {"ref": ["cup"], "bbox": [[8, 6, 24, 18]], "bbox_type": "real"}
    parts = [{"type": "image", "image": "still.png"}, {"type": "text", "text": "Which?"}]
    return [
        {"messages": turns, "images": ["still.jpg"], "objects": objects},
        {"messages": [{"role": "user", "content": parts}, turns[1]], "objects": {**objects, "bbox_type": "norm1"}},
        {"query": "<video>What?", "response": "a cup", "videos": ["other.mkv"], "history": [["Hi", "Hello"]]},
        {"instruction": "Add.", "input": "1 + 2", "output": "3", "system": "Be brief.", "history": []},
    ]


def coco() -> dict[str, Any]:
    """A detection set of one picture."""
    return {
        "images": [{"id": 1, "file_name": "still.jpg", "width": WIDTH_PX, "height": HEIGHT_PX}],
        "categories": [{"id": 2, "name": "cup"}],
        "annotations": [{"image_id": 1, "category_id": 2, "bbox": [8, 6, 16, 12], "iscrowd": 0}],
    }


def write_seedbed(folder: Path) -> Path:
    """Write the dataset; returns its folder."""
    clip = folder / "root" / "cup" / "cup-1" / "cup-1.mp4"
    clip.parent.mkdir(parents=True)
    for suffix, codec in VIDEOS.items():
        _write_video(clip if suffix == "mp4" else folder / "root" / f"other.{suffix}", codec)
    clip.with_name("object_bboxes.txt").write_text(BOX_LINES)
    boxes = np.tile([125, 125, 375, 375], (NUM_FRAMES, 1))
    boxes[2] = 0
    save_boxes(clip.with_name("object_bboxes.npy"), boxes)
    pictures = [Image.fromarray(frame) for frame in _pictures()]
    pictures[0].save(folder / "root" / "moving.gif", save_all=True, append_images=pictures[1:], duration=200)
    (folder / "root" / "frames").mkdir()
    for number, picture in enumerate(pictures[:3], start=1):
        picture.save(folder / "root" / "frames" / f"{number}.png")
    write_film(folder / "root" / "turned.mov", range(0, 70, 10), turn=(90, True, False))
    write_film(folder / "root" / "uneven.webm", (0, 10, 20, 120, 150, 151, 400), codec="libvpx")
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures[0].save(folder / "root" / "phone.jpg", exif=exif)
    Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 20).save(folder / "root" / "deep.png")
    for suffix in ("jpg", "png", "webp"):
        pictures[0].save(folder / "root" / f"still.{suffix}")
    write_jsonl(folder / "lines.jsonl", records())
    (folder / "list.json").write_text(json.dumps(records(), indent=1))
    write_json(folder / "root" / "chats.json", chats())
    write_json(folder / "root" / "coco.json", coco())
    entry = {"root": str(folder / "root"), "annotation": "lines.jsonl", "repeat_time": 1, "length": len(records())}
    write_json(folder / "meta.json", {"main": entry, "list": {**entry, "annotation": "list.json"}})
    return folder


def fresh_copy(source: Path, target: Path) -> Path:
    """Copy the dataset to `target`, which is emptied first; its meta JSON then names the new place."""
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)
    meta = target / "meta.json"
    meta.write_text(meta.read_text().replace(str(source), str(target)))
    return target
