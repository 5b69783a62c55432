"""A dataset in which every kind of fault of the catalogue is planted once, and where each must be found."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from internvl_chat.boxes import load_boxes
from internvl_chat.files import write_json

# Code, file and line (0: the file as a whole) of a finding.
Place = tuple[str, Path, int]

NUM_FRAMES, WIDTH_PX, HEIGHT_PX = 24, 192, 144
QUESTION = "Describe this video in one sentence, and focus on circle located in the coordinate list."
CLIP = "circle/circle-1/circle-1.mp4"
DETECT = "Please detect and label all objects in the following image and mark their positions."


class Workshop:
    """Writes annotations, pictures and copies of one clip, and keeps what must be found where."""

    def __init__(self, folder: Path, clip: Path) -> None:
        self.folder, self.root, self.clip = folder, folder / "root", clip
        self.entries: dict[str, dict[str, Any]] = {}
        self.lines: dict[str, list[str]] = {}
        self.expected: list[Place] = []
        self.meta = folder / "meta.json"
        self.root.mkdir()
        self.boxes = load_boxes(clip.with_name("object_bboxes.npy"))

    def annotation(self, entry: str = "main") -> Path:
        return self.folder / f"{entry}.jsonl"

    def add(self, record: dict[str, Any] | str, *codes: str, entry: str = "main") -> None:
        """Append a record in which these faults must be found."""
        lines = self.lines.setdefault(entry, [])
        lines.append(record if isinstance(record, str) else json.dumps(record, ensure_ascii=False))
        self.expected += [(code, self.annotation(entry), len(lines)) for code in codes]

    def add_clip(self, name: str, boxes: Any = None, code: str = "", entry: str = "main", **changes: Any) -> Path:
        """Append a record with a clip of its own; a fault is expected in its box file. Returns the video."""
        video = self.root / name.split("-")[0] / name / f"{name}.mp4"
        video.parent.mkdir(parents=True)
        shutil.copyfile(self.clip, video)
        box_file = video.with_name("object_bboxes.npy")
        np.save(box_file, self.boxes if boxes is None else boxes)
        self.add({"id": name, "video": f"{name}/{name}.mp4", **talk(QUESTION, "<video>\n"), **changes}, entry=entry)
        if code:
            self.expected.append((code, box_file, 0))
        return video

    def picture(self, name: str, width_px: int = 320, height_px: int = 240) -> str:
        path = self.root / name
        if not path.exists():
            Image.effect_noise((width_px, height_px), 50).convert("RGB").save(path)
        return name

    def add_picture(self, sample_id: str, answer: str, *codes: str, entry: str = "main", **changes: Any) -> None:
        record = {"id": sample_id, "image": self.picture("noise.jpg"), **talk(DETECT, "<image>\n", answer), **changes}
        self.add(record, *codes, entry=entry)

    def write(self) -> Path:
        for entry, lines in self.lines.items():
            self.annotation(entry).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            fields = {"root": str(self.root), "annotation": str(self.annotation(entry))}
            self.entries.setdefault(entry, {**fields, "length": len(lines)})
        write_json(self.meta, self.entries)
        return self.meta


def talk(question: str, placeholder: str = "", answer: str = "a red circle moves left") -> dict[str, Any]:
    turns = [{"from": "human", "value": placeholder + question}, {"from": "gpt", "value": answer}]
    return {"conversations": turns}


def track(**changes: Any) -> dict[str, Any]:
    boxes = [[20 + t, 30, 60 + t, 80] for t in range(NUM_FRAMES)]
    return {"name": "circle", "boxes": boxes, "unit": "pixels", "order": "xyxy", **changes}


def add_clean_records(shop: Workshop) -> None:
    """Records of every kind without a fault, some at the edge of what is allowed."""
    shop.add_clip("circle-1")
    shop.add({"id": 7, **talk("What is the capital of France?", answer="Paris, with 2,102,650 inhabitants.")})
    shop.add({"id": "turns", "conversations": talk("one?")["conversations"] + talk("two?")["conversations"]})
    shop.add_picture("boxes", "<ref>cup</ref><box>[[0, 0, 1000, 1000], [17, 4, 18, 5]]</box>", width=320, height=240)
    pictures = [shop.picture("noise.jpg"), shop.picture("small.png", 40, 30)]
    shop.add({"id": "pair", "image": pictures, **talk("Which is larger?", "<image>\n<image>\n")})
    shop.add({"id": "plain", "video": CLIP, "clip": [0.5, 1.5], **talk("What happens?", "<video>\n")})
    both = [track(absent=[0, 23]), track(name="cross", boxes={"0": [0, 0, 5, 5], "2": [1, 1, 4, 4]}, by="second")]
    both[1]["boxes"] = {"0": [0, 0, 0.5, 0.5], "1.5": [0.25, 0.25, 0.75, 0.5]}
    both[1]["unit"] = "unit"
    keys = track(boxes={str(t): [1, 2, 30, 40] for t in range(0, NUM_FRAMES, 4)}, interpolate=True)
    shop.add({"id": "keys", "video": CLIP, "tracks": [keys], **talk(QUESTION, "<video>\n")})
    shop.add({"id": "tracks", "video": CLIP, "tracks": both, **talk(QUESTION, "<video>\n")})
    folder = shop.root / "frames"
    folder.mkdir()
    for number in range(3):
        shutil.copyfile(shop.root / "small.png", folder / f"{number}.png")
    boxes = [[1, 2, 3, 4], [0, 0, 0, 0], [5, 5, 10, 10]]
    thirds = [track(boxes=boxes, unit="thousandths", order="xywh")]
    shop.add({"id": "folder", "video": "frames", "tracks": thirds, **talk("What is it?", "<video>\n")})


def plant_all(shop: Workshop) -> None:
    """One fault after the other, each in a record and a file of its own."""
    for plant in (_plant_meta, _plant_records, _plant_turns, _plant_texts, _plant_media, _plant_boxes, _plant_tracks):
        plant(shop)


def _plant_meta(shop: Workshop) -> None:
    good = {"root": str(shop.root), "annotation": str(shop.annotation())}
    shop.entries["no root"] = {**good, "root": str(shop.root / "moved")}
    shop.entries["no annotation"] = {**good, "annotation": "none.jsonl"}
    shop.entries["odd key"] = {**good, "repeat_times": 2}
    shop.expected += [(code, shop.meta, 0) for code in ("meta-root", "meta-annotation", "meta-entry", "meta-length")]
    shop.lines["empty"] = []
    shop.expected.append(("annotation-empty", shop.annotation("empty"), 0))
    shop.add({"id": 1, **talk("one?")}, entry="short")
    shop.entries["short"] = {**good, "annotation": str(shop.annotation("short")), "length": 2}


def _plant_records(shop: Workshop) -> None:
    shop.add("{not json", "line-json")
    shop.add({"id": "no turns"}, "record-keys")
    shop.add({"id": "slip", "vidoe": "a.mp4", **talk("What is this?")}, "record-unknown")
    twice = {"id": "twice", **talk("once?")}
    shop.add(twice)
    shop.add(twice, "record-repeated")
    shop.add({"id": "twice", **talk("another?")}, "id-repeated")
    shop.add({"id": "caf\u00e9", **talk("composed?")})
    shop.add({"id": "cafe\u0301", **talk("decomposed?")}, "id-repeated")


def _plant_turns(shop: Workshop) -> None:
    def changed(sample_id: str, change: Callable[[list[dict[str, Any]]], Any], *codes: str) -> None:
        record = copy.deepcopy({"id": sample_id, **talk("Who is it?")})
        change(record["conversations"])
        shop.add(record, *codes)

    changed("text key", lambda turns: turns[1].update(text=turns[1].pop("value")), "turn-keys")
    changed("user", lambda turns: turns[0].update({"from": "user"}), "turn-speaker")
    changed("backwards", lambda turns: turns.reverse(), "turn-order")
    changed("unanswered", lambda turns: turns.pop(), "turn-order")
    for question in ("Who is it?", "Where is it?"):
        shop.add(
            {"id": question, "conversations": talk(question)["conversations"][:1]}, "question-alone", entry="asked"
        )
    changed("empty", lambda turns: turns[1].update(value=" "), "answer-empty")
    changed("no question", lambda turns: turns[0].update(value=""), "question-empty")
    changed("circle-99", lambda turns: turns[1].update(value="circle-99"), "answer-is-id")


def _plant_texts(shop: Workshop) -> None:
    picture = {"image": shop.picture("noise.jpg")}
    clip = {"video": CLIP}
    shop.add({"id": "two", **picture, **talk("What?", "<image>\n<image>\n")}, "placeholder-count")
    shop.add({"id": "one line", **clip, **talk(QUESTION, "<video> ")}, "placeholder-break")
    shop.add({"id": "none", **clip, **talk(QUESTION)}, "placeholder-video")
    shop.add({"id": "implied", **picture, **talk("What is it?")}, "placeholder-missing")
    shop.add({"id": "answered", **talk("What?", answer="see <image>")}, "placeholder-place")
    later = [*talk("one?")["conversations"], *talk("two?", "<video>\n")["conversations"]]
    shop.add({"id": "later", **clip, "conversations": later}, "placeholder-place")
    shop.add({"id": "unsaid", **picture, **talk(QUESTION, "<image>\n")}, "record-keys")
    shop.add({"id": "end", **talk("What?", answer="yes<|im_end|>")}, "text-token")
    shop.add({"id": "other end", **talk("What?", answer="yes<|endoftext|>")}, "text-token")
    shop.add({"id": "qwen", **talk("Where?", answer="<|box_start|>(80,40),(160,200)<|box_end|>")}, "text-foreign")
    shop.add({"id": "moji", **talk("What?", answer="caf\ufffd")}, "text-damaged")
    shop.add({"id": "arabic", **talk("When?", answer="\u0661\u0662 minutes")}, "text-digits")
    shop.add({"id": "long", **talk("Say it all.", answer="word " * 20000)}, "length-budget")


def _plant_media(shop: Workshop) -> None:
    question = talk("What happens?", "<video>\n")
    files = {"gone.mp4": "media-missing", "text.mp4": "media-unreadable", "cut.mp4": "media-truncated"}
    files["small.png"] = "media-kind"
    (shop.root / "text.mp4").write_text("this is no video")
    (shop.root / "cut.mp4").write_bytes(shop.clip.read_bytes()[:-100])
    for name, code in files.items():
        shop.add({"id": name, "video": name, **question})
        shop.expected.append((code, shop.root / name, 0))
    (shop.root / "cut.jpg").write_bytes((shop.root / "noise.jpg").read_bytes()[:-2000])
    shop.add({"id": "cut picture", "image": "cut.jpg", **talk("What?", "<image>\n")})
    shop.expected.append(("media-truncated", shop.root / "cut.jpg", 0))
    (shop.root / "gap").mkdir()
    for number in (1, 2, 3, 5, 6):
        shutil.copyfile(shop.root / "small.png", shop.root / "gap" / f"{number}.png")
    shop.add({"id": "gap", "video": "gap", **question})
    shop.expected.append(("media-gaps", shop.root / "gap", 0))
    first, second = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (40, 30), "blue")
    first.save(shop.root / "film.webp", save_all=True, append_images=[second])
    shop.add({"id": "moves", "image": "film.webp", **talk("What?", "<image>\n")})
    shop.expected.append(("media-moves", shop.root / "film.webp", 0))
    shop.add({"id": "out", "video": "../root/text.mp4", **question}, "media-path")
    shop.add({"id": "late", "video": CLIP, "clip": [1, 9], **question}, "clip-range")
    shop.add_picture("size", "a blur", "media-size", width=240, height=320)


def _plant_boxes(shop: Workshop) -> None:
    boxes = shop.boxes
    away = np.where(np.arange(NUM_FRAMES)[:, None] == 3, [[9, 9, 9, 40]], boxes)
    xywh = np.stack([np.full(NUM_FRAMES, 700), np.arange(400, 400 + NUM_FRAMES), *np.full((2, NUM_FRAMES), 90)], 1)
    shop.add_clip("rows-1", boxes[:-1], "box-rows")
    shop.add_clip("five-1", np.pad(boxes, ((0, 0), (0, 1))), "box-shape")
    shop.add_clip("nan-1", np.where(boxes == boxes[2, 2], np.nan, boxes.astype(float)), "box-nan")
    shop.add_clip("minus-1", np.maximum(boxes, 1) * [[-1, 1, 1, 1]], "box-range")
    shop.add_clip("xywh-1", xywh, "box-order")
    shop.add_clip("line-1", away, "track-degenerate")
    shop.add_clip("away-1", boxes * 0, "track-absent")
    shop.add_clip("float-1", boxes / 1000, "box-unit")
    bad = shop.add_clip("bad-1", None, "box-file-unreadable").with_name("object_bboxes.npy")
    bad.write_bytes(b"no numpy")
    shop.add_clip("none-1", None, "box-file-missing").with_name("object_bboxes.npy").unlink()
    old = shop.add_clip("old-1", None, "box-file-stale").with_name("object_bboxes.txt")
    old.write_text("0,0,1,1\n" * NUM_FRAMES)
    os.utime(old.with_suffix(".npy"), (1, 1))
    shop.add_picture("flat", "<ref>cup</ref><box>[[10, 20, 10, 40]]</box>", "box-degenerate")
    shop.add_picture("open", "<ref>cup</ref><box>[[10, 20, 30, 40]]", "box-syntax")
    shop.add_picture("wide", "<ref>cup</ref><box>[[\uff11, 2, 30, 40]]</box>", "box-digits")
    for number in range(6):
        shop.add_clip(f"small-{number}", np.tile([20, 20, 160 + 4 * number, 135], (NUM_FRAMES, 1)), entry="pixels")
        shop.add_picture(f"p{number}", f"<box>[[9, 9, {300 + number}, 230]]</box>", entry="picture pixels")
        shop.add_picture(f"w{number}", f"<box>[[600, 500, {90 + number}, 400]]</box>", entry="picture xywh")
    shop.add_picture("few", "<box>[[9, 9, 300, 230]]</box>", entry="doubtful")
    shop.expected.append(("box-unit-doubt", shop.annotation("doubtful"), 1))
    for number, (right, bottom) in enumerate([(44, 35), (32, 46), (45, 20), (16, 26)]):
        boxes = [[right - 12, bottom - 18, right, bottom]] * NUM_FRAMES
        percents = {"id": f"c{number}", "video": CLIP, **talk(QUESTION, "<video>\n"), "tracks": [track(boxes=boxes)]}
        shop.add(percents, entry="percents")
    shop.expected.append(("box-unit-doubt", shop.annotation("percents"), 0))
    shop.expected.append(("box-unit", shop.annotation("pixels"), 0))
    shop.expected.append(("box-unit", shop.annotation("picture pixels"), 1))
    shop.expected.append(("box-order", shop.annotation("picture xywh"), 1))


def _plant_tracks(shop: Workshop) -> None:
    def tracked(name: str, code: str, size: tuple[int, int] | None = None, **changes: Any) -> None:
        record = {"id": name, "video": CLIP, **talk(QUESTION, "<video>\n")}
        if size:
            record |= {"width": size[0], "height": size[1]}
        shop.add({**record, "tracks": [track(**changes)]}, *filter(None, [code]))

    tracked("unit", "track-keys", unit="px")
    tracked("absent", "track-frames", absent=[NUM_FRAMES])
    tracked("between", "track-absent", boxes={"2.45": [1, 2, 30, 40]}, by="second")
    tracked("late box", "track-frames", boxes={"22": [1, 2, 30, 40], "24": [1, 2, 30, 40]})
    tracked("key frames", "track-sparse", boxes={str(t): [1, 2, 30, 40] for t in range(0, NUM_FRAMES, 2)})
    tracked("two ends", "track-sparse", boxes={"0": [1, 2, 30, 40], "23": [9, 2, 38, 40]})
    tracked("gone between", "", boxes={"0": [1, 2, 30, 40], "23": [9, 2, 38, 40]}, interpolate=False)
    tracked("other size", "track-refused", boxes=[[20, 30, 60, 80]] * NUM_FRAMES, size=(WIDTH_PX * 2, HEIGHT_PX * 2))
    tracked("few", "box-rows", boxes=[[1, 2, 30, 40]] * 23)
    tracked("three", "box-shape", boxes=[[1, 2, 30]] * NUM_FRAMES)
    tracked("not unit", "box-unit", unit="unit")
    tracked("not pixels", "box-unit", boxes=[[0.1, 0.2, 0.3, 0.4]] * NUM_FRAMES)
    tracked("thousandths", "box-unit", boxes=[[300, 500, 600, 900]] * NUM_FRAMES)
    tracked("not xyxy", "box-order", boxes=[[150, 100, 20, 30]] * NUM_FRAMES)
    tracked("not xywh", "box-order", boxes=[[100, 80, 190, 140]] * NUM_FRAMES, order="xywh")
    tracked("beside", "track-outside", boxes=[[200, 10, 260, 50]] * 2 + [[20, 10, 60, 50]] * (NUM_FRAMES - 2))
    tracked("far", "box-range", boxes=[[1900, 1200, 2300, 1700]] * NUM_FRAMES)
