"""A miniature of each set of objects with tracks, as it is published or exported, and the records counted by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tests.data.clips import HEIGHT_PX, WIDTH_PX, write_clip

NUM_FRAMES = 7


@dataclass(frozen=True)
class Expected:
    """A record: its id, video, answer, order of the boxes, and each object's boxes by name."""

    id: str
    video: str
    text: str
    order: str
    boxes: list[tuple[str, dict[str, list[float]]]]
    unit: str = "pixels"


@dataclass(frozen=True)
class Miniature:
    """A set: what `--from` calls it, what writes it into a folder and returns the source, flags, and its records."""

    kind: str
    write: Callable[[Path], Path]
    records: list[Expected]
    flags: tuple[str, ...] = ()


def write_frames(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for shade, name in enumerate(names):
        Image.new("RGB", (WIDTH_PX, HEIGHT_PX), (40 + 20 * shade, 90, 120)).save(folder / name)


def dump(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content, indent=1))
    return path


def hcstvg(folder: Path) -> Path:
    (folder / "video").mkdir()
    write_clip(folder / "video" / "12_walk.mp4", NUM_FRAMES)
    entry = {"img_num": NUM_FRAMES, "img_size": [HEIGHT_PX, WIDTH_PX], "st_frame": 3, "st_time": 0.08, "ed_time": 0.16}
    entry |= {"bbox": [[10, 11, 20, 30], [12, 11, 20, 30], [14, 11, 20, 31]], "English": "The man walks."}
    return dump(folder / "valv2.json", {"12_walk.mp4": entry})


def run_lengths(box: tuple[int, int, int, int] | None) -> dict[str, Any] | None:
    """COCO's compressed mask of a filled box x y w h."""
    if box is None:
        return None
    x, y, w, h = box
    mask = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    run = coco_mask.encode(mask)
    return {"size": run["size"], "counts": run["counts"].decode()}


def mevis(folder: Path) -> Path:
    names = [f"{k:05d}" for k in range(4)]
    write_frames(folder / "JPEGImages" / "v1", [f"{name}.jpg" for name in names])
    masks = {
        "3": [run_lengths((10, 5, 20, 30)), run_lengths((12, 5, 20, 30)), None, run_lengths((0, 0, 0, 0))],
        "9": [None, None, run_lengths((50, 40, 7, 9)), run_lengths((52, 40, 7, 9))],
    }
    expressions = {
        "0": {"exp": "the dog that runs", "obj_id": [0], "anno_id": [3]},
        "1": {"exp": "both animals", "obj_id": [0, 1], "anno_id": [3, 9]},
    }
    dump(folder / "meta_expressions.json", {"videos": {"v1": {"frames": names, "expressions": expressions}}})
    dump(folder / "mask_dict.json", masks)
    return folder


DOG = {"0": [10, 5, 20, 30], "1": [12, 5, 20, 30]}


def videoref(folder: Path) -> Path:
    frames = [f"{k:05d}.jpg" for k in range(1, 6)]
    write_frames(folder / "HC-STVG" / "frames" / "x", frames)
    entry = {
        "clip_path": "HC-STVG/clip_feature/x.pkl",
        "caption": "A man waves.",
        "question": "What is the <bbox> doing?",
        "track_list": [[1, 2, 30, 40], [], [3, 2, 32, 40.5]],
        "frame_path": "HC-STVG/frames/x",
        "frame_id": ["00002.jpg", "00003.jpg", "00005.jpg"],
        "key_frame_box": [2, 2, 31, 40],
        "key_frame_id": "00004.jpg",
        "video_name": "x",
    }
    return dump(folder / "nlp.json", [entry, {**entry, "caption": "He waves.", "key_frame_box": []}])


WAVES = {"1": [1, 2, 30, 40], "4": [3, 2, 32, 40.5]}
WAVES_AT_KEY = {"1": [1, 2, 30, 40], "3": [2, 2, 31, 40], "4": [3, 2, 32, 40.5]}


def artemis(folder: Path) -> Path:
    """Stage 3's form, in two lists of a folder."""
    source = videoref(folder)
    (first, second), lists = json.loads(source.read_text()), folder / "lists"
    lists.mkdir()
    source.unlink()
    dump(lists / "a.json", [first])
    dump(lists / "b.json", [second])
    return lists


def mot(folder: Path) -> Path:
    sequence = folder / "MOT-02"
    write_frames(sequence / "img1", [f"{k:06d}.jpg" for k in range(1, 4)])
    (sequence / "gt").mkdir()
    rows = ["1,2,10,11,20,30,1,1,0.9", "3,2,14,11,20,30.5,1,1,1", "1,5,40,20,9,8,1,3,1", "2,5,41,20,9,8,0,3,1"]
    (sequence / "gt" / "gt.txt").write_text("\n".join(rows) + "\n")
    (sequence / "gt" / "labels.txt").write_text("walker\nrider\ncar\n")
    return folder


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><size>7</size></task><source>clip.mp4</source></meta>
  <track id="0" label="cat" source="manual">
    <box frame="1" keyframe="1" outside="0" occluded="0" xtl="10.0" ytl="20" xbr="30" ybr="40" z_order="0"/>
    <box frame="3" keyframe="1" outside="0" occluded="0" xtl="14.0" ytl="20" xbr="34" ybr="42" z_order="0"/>
    <box frame="5" keyframe="1" outside="1" occluded="0" xtl="14.0" ytl="20" xbr="34" ybr="42" z_order="0"/>
    <box frame="6" keyframe="1" outside="0" occluded="0" xtl="50" ytl="20" xbr="70" ybr="40" z_order="0"/>
  </track>
</annotations>
"""


def cvat(folder: Path) -> Path:
    write_clip(folder / "clip.mp4", NUM_FRAMES)
    (folder / "annotations.xml").write_text(CVAT)
    return folder / "annotations.xml"


def boxes_csv(folder: Path) -> Path:
    write_clip(folder / "clip.mp4", NUM_FRAMES)
    rows = ["video,frame,object,label,cx,cy,w,h", "clip.mp4,1,a,dog,50,50,20,10", "clip.mp4,3,a,dog,54,50,20,12"]
    (folder / "boxes.csv").write_text("\n".join([*rows, 'clip.mp4,2,b,"a cat, grey",25,25,50,50']) + "\n")
    return folder / "boxes.csv"


def label_studio(folder: Path) -> Path:
    write_clip(folder / "clip.mp4", NUM_FRAMES)
    keys = [(1, 10, True), (3, 14, False), (5, 20, True)]
    sequence = [
        {"frame": frame, "enabled": enabled, "rotation": 0, "x": x, "y": 20, "width": 30, "height": 40, "time": 0}
        for frame, x, enabled in keys
    ]
    value = {"framesCount": NUM_FRAMES, "duration": 0.28, "sequence": sequence, "labels": ["dog"]}
    region = {"id": "r1", "type": "videorectangle", "value": value}
    task = {"id": 1, "data": {"video": "/data/upload/3/1f2e3d4c-clip.mp4"}, "annotations": [{"result": [region]}]}
    return dump(folder / "export.json", [task])


def yolo_tracks(folder: Path) -> Path:
    write_clip(folder / "clip.mp4", NUM_FRAMES)
    (folder / "labels").mkdir()
    (folder / "labels" / "clip_1.txt").write_text("1 0.5 0.5 0.2 0.1 7\n0 0.25 0.25 0.5 0.5 0.9 8\n")
    (folder / "labels" / "clip_3.txt").write_text("1 0.54 0.5 0.2 0.12 7\n")
    (folder / "labels" / "classes.txt").write_text("cat\ndog\n")
    return folder / "labels"


def coco_vid(folder: Path) -> Path:
    write_frames(folder / "v7", ["f9.png", "f10.png"])
    images = [{"id": k + 1, "video_id": 1, "frame_id": k, "file_name": f"v7/f{k + 9}.png"} for k in range(2)]
    boxes = [(1, 4, [10, 11, 20, 30]), (2, 4, [12, 11, 20, 30.5])]
    annotations = [
        {"id": n, "image_id": image, "video_id": 1, "category_id": 3, "instance_id": key, "bbox": box}
        for n, (image, key, box) in enumerate(boxes)
    ]
    content = {"videos": [{"id": 1, "name": "v7"}], "images": images, "annotations": annotations}
    return dump(folder / "coco_vid.json", {**content, "categories": [{"id": 3, "name": "horse"}]})


def vid_sentence(folder: Path) -> Path:
    samples, tubes = folder / "Data/VID/annSamples", folder / "Annotations/VID/tubeGt/train"
    samples.mkdir(parents=True)
    tubes.mkdir(parents=True)
    write_frames(folder / "Data/VID/train/set1/v3", [f"{n:06d}.JPEG" for n in range(NUM_FRAMES)])
    (tubes / "set1").mkdir()
    track = [{"frame": n + 1, "bbox": [3 * n, 5, 3 * n + 20, 30]} for n in range(2, 5)]
    dump(tubes / "set1" / "v3.js", {"annotations": [{"id": 1, "track": track[:1]}, {"id": 4, "track": track}]})
    (samples / "train_valid_list.txt").write_text("set1/v3,1\nset1/v3,4\n")
    (samples / "train_ann_list_v2.txt").write_text("1,a still fox\n2,a fox, red, runs right\n")
    return folder


def a2d_sentences(folder: Path) -> Path:
    import h5py

    masks = folder / "text_annotations/a2d_annotation_with_instances/xyz_0"
    masks.mkdir(parents=True)
    (folder / "Release/clips320H").mkdir(parents=True)
    write_clip(folder / "Release/clips320H/xyz_0.mp4", NUM_FRAMES)
    for frame, left in ((2, 10), (5, 16)):
        with h5py.File(masks / f"{frame:05d}.h5", "w") as file:
            mask = np.zeros((2, WIDTH_PX, HEIGHT_PX), np.uint8)
            mask[0, left : left + 8, 20:31] = 1
            mask[1, 1:4, 2:5] = frame == 2
            file["reMask"], file["instance"] = mask, np.array([0, 3])
    rows = [["a bird flies", "xyz_0", 2, 0], ["a bird flies", "xyz_0", 5, 0], ["a ball", "xyz_0", 2, 3]]
    return dump(folder / "a2d_test.json", rows)


def mgit(folder: Path) -> Path:
    """Two sequences of a split; the second has no labels of absence, and one frame of NaN."""
    openpyxl = pytest.importorskip("openpyxl", reason="MGIT's texts need requirements/mgit.txt")
    for name in ("attribute/groundtruth", "attribute/absent", "mgit_nlp"):
        (folder / name).mkdir(parents=True)
    tracks = {"002": "10,5,20,30\n12,5,20,30.5\n0,0,0,0\n16,5,20,30\n", "013": "1,2,30,40\nnan,nan,nan,nan\n"}
    for sequence, lines in tracks.items():
        (folder / f"attribute/groundtruth/{sequence}.txt").write_text(lines)
        frames = folder / f"data/train/{sequence}/frame_{sequence}"
        write_frames(frames, [f"{n:06d}.jpg" for n in range(lines.count("\n"))])
        book = openpyxl.Workbook()
        for row in (
            [f"heading {n}" for n in range(15)],
            ["a step"] * 15,
            [3, *[None] * 13, f"The story\nof {sequence}."],
        ):
            book.active.append(row)
        book.save(folder / f"mgit_nlp/{sequence}.xlsx")
    (folder / "attribute/absent/002.txt").write_text("0\n0\n1\n1\n")
    return folder / "data" / "train"


MINIATURES = [
    Miniature(
        "mgit",
        mgit,
        [
            Expected(
                "002-0",
                "data/train/002/frame_002",
                "The story of 002.",
                "xywh",
                [("object", {"0": [10, 5, 20, 30], "1": [12, 5, 20, 30.5]})],
            ),
            Expected(
                "013-0", "data/train/013/frame_013", "The story of 013.", "xywh", [("object", {"0": [1, 2, 30, 40]})]
            ),
        ],
    ),
    Miniature(
        "vid-sentence",
        vid_sentence,
        [
            Expected("train-1-0", "Data/VID/train/set1/v3", "a still fox", "xyxy", [("object", {"2": [6, 5, 26, 30]})]),
            Expected(
                "train-2-0",
                "Data/VID/train/set1/v3",
                "a fox, red, runs right",
                "xyxy",
                [("object", {"2": [6, 5, 26, 30], "3": [9, 5, 29, 30], "4": [12, 5, 32, 30]})],
            ),
        ],
    ),
    Miniature(
        "a2d-sentences",
        a2d_sentences,
        [
            Expected(
                "xyz_0-0-0-0",
                "Release/clips320H/xyz_0.mp4",
                "a bird flies",
                "xyxy",
                [
                    (
                        "actor",
                        {
                            "1": [10, 20, 18, 31],
                            "2": [12, 20, 20, 31],
                            "3": [14, 20, 22, 31],
                            "4": [16, 20, 24, 31],
                        },
                    )
                ],
            ),
            Expected("xyz_0-3-1-0", "Release/clips320H/xyz_0.mp4", "a ball", "xyxy", [("actor", {"1": [1, 2, 4, 5]})]),
        ],
        ("--interpolate",),
    ),
    Miniature(
        "hcstvg",
        hcstvg,
        [
            Expected(
                "12_walk-0",
                "video/12_walk.mp4",
                "The man walks.",
                "xywh",
                [("person", {"2": [10, 11, 20, 30], "3": [12, 11, 20, 30], "4": [14, 11, 20, 31]})],
            )
        ],
    ),
    Miniature(
        "mevis",
        mevis,
        [
            Expected("v1-0-0", "JPEGImages/v1", "the dog that runs", "xywh", [("object", DOG)]),
            Expected(
                "v1-1-0",
                "JPEGImages/v1",
                "both animals",
                "xywh",
                [("object", DOG), ("object", {"2": [50, 40, 7, 9], "3": [52, 40, 7, 9]})],
            ),
        ],
    ),
    Miniature(
        "videoref",
        videoref,
        [
            Expected("nlp-0-0", "HC-STVG/frames/x", "A man waves.", "xyxy", [("object", WAVES_AT_KEY)]),
            Expected("nlp-1-0", "HC-STVG/frames/x", "He waves.", "xyxy", [("object", WAVES)]),
        ],
    ),
    Miniature(
        "artemis",
        artemis,
        [
            Expected("a-0-0", "HC-STVG/frames/x", "A man waves.", "xyxy", [("object", WAVES_AT_KEY)]),
            Expected("b-0-0", "HC-STVG/frames/x", "He waves.", "xyxy", [("object", WAVES)]),
        ],
    ),
    Miniature(
        "mot",
        mot,
        [
            Expected(
                "MOT-02-2-0",
                "MOT-02/img1",
                "walker",
                "xywh",
                [("walker", {"0": [10, 11, 20, 30], "2": [14, 11, 20, 30.5]})],
            ),
            Expected("MOT-02-5-0", "MOT-02/img1", "car", "xywh", [("car", {"0": [40, 20, 9, 8]})]),
        ],
    ),
    Miniature(
        "cvat",
        cvat,
        [
            Expected(
                "clip-0-0",
                "clip.mp4",
                "cat",
                "xyxy",
                [
                    (
                        "cat",
                        {
                            "1": [10, 20, 30, 40],
                            "2": [12, 20, 32, 41],
                            "3": [14, 20, 34, 42],
                            "4": [14, 20, 34, 42],
                            "6": [50, 20, 70, 40],
                        },
                    )
                ],
            )
        ],
    ),
    Miniature(
        "boxes-csv",
        boxes_csv,
        [
            Expected(
                "clip-a-0",
                "clip.mp4",
                "dog",
                "xyxy",
                [
                    (
                        "dog",
                        {"0": [0.4, 0.45, 0.6, 0.55], "1": [0.42, 0.445, 0.62, 0.555], "2": [0.44, 0.44, 0.64, 0.56]},
                    )
                ],
                "unit",
            ),
            Expected("clip-b-0", "clip.mp4", "a cat, grey", "xyxy", [("a cat, grey", {"1": [0, 0, 0.5, 0.5]})], "unit"),
        ],
        ("--unit", "percent", "--first_frame", "1", "--interpolate"),
    ),
    Miniature(
        "label-studio",
        label_studio,
        [
            Expected(
                "clip-r1-0",
                "clip.mp4",
                "dog",
                "xywh",
                [
                    (
                        "dog",
                        {
                            str(frame): [x, 0.2, 0.3, 0.4]
                            for frame, x in ((0, 0.1), (1, 0.12), (2, 0.14), (4, 0.2), (5, 0.2), (6, 0.2))
                        },
                    )
                ],
                "unit",
            )
        ],
    ),
    Miniature(
        "yolo-tracks",
        yolo_tracks,
        [
            Expected(
                "clip-7-0",
                "clip.mp4",
                "dog",
                "xywh",
                [("dog", {"0": [0.4, 0.45, 0.2, 0.1], "2": [0.44, 0.44, 0.2, 0.12]})],
                "unit",
            ),
            Expected("clip-8-0", "clip.mp4", "cat", "xywh", [("cat", {"0": [0, 0, 0.5, 0.5]})], "unit"),
        ],
    ),
    Miniature(
        "coco-vid",
        coco_vid,
        [Expected("v7-4-0", "v7", "horse", "xywh", [("horse", {"0": [10, 11, 20, 30], "1": [12, 11, 20, 30.5]})])],
    ),
]
