"""A sound source of every converter: what broken ones are made of, in `make fuzz` and elsewhere.

A new converter comes with a miniature (docs/adding/converter.md) and so is here without being named again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from tests.data.clips import write_clip
from tests.data.converters.miniatures import MINIATURES, dump, write_frames
from tests.data.converters.test_both_ways import OTHERS, messages, turns

Writer = Callable[[Path], Path]
BOX = "8,6,16,12"


def _picture(folder: Path) -> None:
    Image.new("RGB", (64, 48), (90, 90, 90)).save(folder / "still.png")


def _coco(folder: Path) -> Path:
    _picture(folder)
    boxes = [{"image_id": 1, "category_id": n, "bbox": [8 * n, 6, 16, 12.5], "iscrowd": 0} for n in (2, 3)]
    pictures = [{"id": 1, "file_name": "still.png", "width": 64, "height": 48}]
    names = [{"id": 2, "name": "cup"}, {"id": 3, "name": "lid"}]
    return dump(folder / "coco.json", {"images": pictures, "annotations": boxes, "categories": names})


def _refcoco(folder: Path) -> Path:
    _picture(folder)
    region = {"image": "still.png", "sent": "the left cup", "bbox": [8, 6, 24, 18], "width": 64, "height": 48}
    return dump(folder / "regions.json", [region, {**region, "id": "mine", "bbox": [0.5, 0, 64, 48]}])


def _swift(folder: Path) -> Path:
    _picture(folder)
    objects = {"ref": ["cup"], "bbox": [[8, 6, 24, 18]], "bbox_type": "real"}
    asked = messages("<image>Where is <ref-object>?", "<bbox>")
    first = {"messages": asked, "images": ["still.png"], "objects": objects}
    others = [{**first, "objects": {**objects, "bbox": [[0.1, 0.2, 0.3, 0.4]], "bbox_type": "norm1"}}]
    others += [{"query": "Why?", "response": "So.", "history": [["Hi", "Ho"]]}]
    return dump(folder / "swift.json", [first, *others])


def _llamafactory(folder: Path) -> Path:
    _picture(folder)
    chat = {"conversations": turns("<image>\nWhat?", "a cup"), "images": ["still.png"]}
    return dump(folder / "alpaca.json", [chat, {"instruction": "Add.", "input": "1 + 2", "output": "3", "history": []}])


def _cogvlm2(folder: Path) -> Path:
    for name in ("images", "labels"):
        (folder / name).mkdir()
    _picture(folder / "images")
    dump(folder / "labels" / "still.json", {"conversations": messages("What?", "A cup.", "Whose?", "Mine.")})
    return folder


def _lasot(folder: Path) -> Path:
    sequence = folder / "lion" / "lion-5"
    write_frames(sequence / "img", [f"{n:08d}.jpg" for n in range(1, 5)])
    for name, text in (("full_occlusion", "0,1,0,0"), ("out_of_view", "0,0,1,0"), ("nlp", "a lion walking")):
        (sequence / f"{name}.txt").write_text(f"{text}\n")
    (sequence / "groundtruth.txt").write_text(f"{BOX}\n" * 4)
    return folder


def _got10k(folder: Path) -> Path:
    sequence = folder / "GOT-10k_Train_000001"
    write_frames(sequence, [f"{n:08d}.jpg" for n in range(1, 5)])
    (sequence / "groundtruth.txt").write_text(f"{BOX}\n" * 4)
    (sequence / "absence.label").write_text("0\n0\n1\n0\n")
    (sequence / "meta_info.ini").write_text("[METAINFO]\nobject_class: panda\nmotion_class: walking\n")
    return folder


def _both_ways(kind: str, folder: Path) -> Path:
    write_clip(folder / "b.mp4", 3)
    return dump(folder / f"{kind}.json", json.loads(json.dumps(OTHERS[kind])))


_OTHERS: dict[str, Any] = {
    "coco": _coco,
    "refcoco": _refcoco,
    "ms-swift": _swift,
    "llamafactory": _llamafactory,
    "cogvlm2": _cogvlm2,
    "lasot": _lasot,
    "got10k": _got10k,
}
# What writes a source of each kind into an empty folder and returns it.
SOUND_SOURCES: dict[str, Writer] = {
    **{one.kind: one.write for one in MINIATURES},
    **{kind: partial(_both_ways, kind) for kind in OTHERS},
    **_OTHERS,
}
