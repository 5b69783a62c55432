"""`python -m internvl_chat convert-data`: other projects' data become records that the check finds no fault in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from internvl_chat.__main__ import main
from internvl_chat.data.checking.check import check_meta
from internvl_chat.data.media.sources import read_media_header
from internvl_chat.data.records.annotations import load_meta, read_samples
from internvl_chat.data.records.tracks import boxes_at

Convert = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    for name, size in (("a.png", (200, 100)), ("b.png", (64, 48))):
        Image.effect_noise(size, 40).convert("RGB").save(folder / name)
    return folder


@pytest.fixture
def convert(root: Path, tmp_path: Path) -> Convert:
    """Runs the command, checks what it wrote, and returns the records."""

    def run(kind: str, source: Any, *flags: str) -> list[dict[str, Any]]:
        path = root / "source.json"
        if isinstance(source, Path):
            path = source
        else:
            path.write_text(source if isinstance(source, str) else json.dumps(source), encoding="utf-8")
        out, meta = tmp_path / "out.jsonl", tmp_path / "meta.json"
        argv = ["convert-data", "--from", kind, str(path), "--out", str(out), "--meta_out", str(meta), *flags]
        assert main(argv) == 0
        assert [str(finding) for finding in check_meta(meta, workers=1).findings] == []
        return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]

    return run


def turns(*texts: str, system: str = "") -> list[dict[str, str]]:
    spoken = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]
    return [{"from": "system", "value": system}, *spoken] if system else spoken


def test_sharegpt_lists_keep_their_images_and_system_message(convert: Convert, root: Path) -> None:
    records = convert(
        "llamafactory",
        [
            {"conversations": turns("<image>Which one?", "this"), "images": ["a.png"], "system": "Be brief."},
            {
                "id": "pair",
                "messages": [
                    {"role": "user", "content": "<image><image>\nSame?"},
                    {"role": "assistant", "content": "no"},
                ],
                "images": [str(root / "a.png"), "b.png"],
            },
        ],
    )
    assert records == [
        {"id": "source-0", "image": "a.png", "conversations": turns("<image>Which one?", "this", system="Be brief.")},
        {"id": "pair", "image": ["a.png", "b.png"], "conversations": turns("<image><image>\nSame?", "no")},
    ]


def test_alpaca_records_become_conversations(convert: Convert, shapes_root: Path, root: Path) -> None:
    clip = sorted(shapes_root.glob("*/*/*.mp4"))[0]
    (root / "clip.mp4").write_bytes(clip.read_bytes())
    records = convert(
        "llamafactory",
        [
            {"instruction": "Add.", "input": "1 + 2", "output": "3", "history": [["Hello", "Hi"]], "system": "Sums."},
            {"instruction": "<video>What moves?", "input": "", "output": "a circle", "videos": ["clip.mp4"]},
        ],
    )
    assert [r["conversations"] for r in records] == [
        turns("Hello", "Hi", "Add.\n1 + 2", "3", system="Sums."),
        turns("<video>\nWhat moves?", "a circle"),
    ]
    assert records[1]["video"] == "clip.mp4"


def test_swift_messages_fill_in_placeholders_and_boxes(convert: Convert) -> None:
    grounding = [
        {"role": "user", "content": "<image>Where is <ref-object>?"},
        {"role": "assistant", "content": "<bbox> and <bbox>"},
    ]
    objects = {"ref": ["the cup"], "bbox": [[20, 10, 100, 60], [-5, 0, 205, 100]]}
    parts = [{"type": "image", "image": "b.png"}, {"type": "text", "text": "What?"}]
    lines = [
        {"messages": grounding, "images": ["a.png"], "objects": objects},
        {"query": "Which?", "response": "both", "images": ["a.png", {"path": "b.png"}], "history": [["Hi", "Hello"]]},
        {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "noise"}]},
        {
            "messages": grounding,
            "images": ["a.png"],
            "objects": {**objects, "bbox": [[0.1, 0.2, 0.3, 0.4]] * 2, "bbox_type": "norm1"},
        },
    ]
    records = convert("ms-swift", "\n".join(json.dumps(line) for line in lines))
    assert [r["conversations"] for r in records] == [
        turns(
            "<image>Where is <ref>the cup</ref>?",
            "<box>[[100, 100, 500, 600]]</box> and <box>[[0, 0, 1000, 1000]]</box>",
        ),
        turns("<image>\n<image>\nHi", "Hello", "Which?", "both"),
        turns("<image>What?", "noise"),
        turns(
            "<image>Where is <ref>the cup</ref>?",
            "<box>[[100, 200, 300, 400]]</box> and <box>[[100, 200, 300, 400]]</box>",
        ),
    ]
    assert [r["image"] for r in records] == ["a.png", ["a.png", "b.png"], "b.png", "a.png"]


def coco(**changes: Any) -> dict[str, Any]:
    def box(category: int, *bbox: float, **more: Any) -> dict[str, Any]:
        return {"image_id": 7, "category_id": category, "bbox": list(bbox), **more}

    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 200, "height": 100},
            {"id": 8, "file_name": "b.png", "width": 64, "height": 48},
        ],
        "categories": [{"id": 3, "name": "screw"}, {"id": 1, "name": "gun"}, {"id": 2, "name": "unused"}],
        "annotations": [
            box(1, 20, 10, 80, 50),
            box(3, 150, 50, 55, 55),
            box(1, 0, 0, 5, 5),
            box(1, 0, 0, 50, 50, iscrowd=1),
        ],
        **changes,
    }


@pytest.mark.parametrize("kind", ["ms-swift", "llamafactory"])
def test_media_are_taken_under_either_name(kind: str, convert: Convert, root: Path) -> None:
    said = {"messages": turns("<image>What?", "that"), "label": True}
    for media in ({"image": "a.png"}, {"images": ["a.png"]}, {"images": "a.png"}):
        (record,) = convert(kind, [{**said, **media}])
        assert record["image"] == "a.png"


def test_coco_answers_are_grouped_by_class_clamped_and_in_thousandths(convert: Convert) -> None:
    (record,) = convert("coco", coco())
    assert (record["id"], record["image"], record["width"], record["height"]) == (7, "a.png", 200, 100)
    assert record["conversations"] == turns(
        "<image>\nPlease detect and label all objects in the following image and mark their positions.",
        "Sure, I will detect and label all objects in the image and mark their positions.\n\n```\n"
        "<ref>screw</ref><box>[[750, 500, 1000, 1000]]</box>\n"
        "<ref>gun</ref><box>[[100, 100, 500, 600], [0, 0, 25, 50]]</box>\n"
        "```\n",
    )


def swift_box(*box: float, **more: Any) -> dict[str, Any]:
    return {"messages": turns("<image><bbox>", "b"), "images": ["a.png"], "objects": {"bbox": [list(box)], **more}}


REGION = {"image": "a.png", "sent": "the left gun", "bbox": [20, 10, 100, 60], "width": 200, "height": 100}


def test_refcocos_phrases_become_the_guides_question(convert: Convert, root: Path) -> None:
    lines = [REGION, {**REGION, "id": "mine", "bbox": [150, 50, 205, 104], "hw": [100, 200]}]
    (root / "refs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    first, second = convert("refcoco", root / "refs.jsonl")
    assert {k: first[k] for k in ("id", "image", "width", "height")} == {
        "id": "line 1",
        "image": "a.png",
        "width": 200,
        "height": 100,
    }
    assert first["conversations"] == turns(
        "<image>\nPlease provide the bounding box coordinate of the region this sentence describes: "
        "<ref>the left gun</ref>",
        "<ref>the left gun</ref><box>[[100, 100, 500, 600]]</box>",
    )
    assert second["id"] == "mine" and second["conversations"][1]["value"].endswith("[[750, 500, 1000, 1000]]</box>")


def write_frames(folder: Path, count: int, pattern: str = "{:08d}.jpg") -> None:
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        Image.effect_noise((80, 60), 40).convert("RGB").save(folder / pattern.format(number))


def write_lasot(root: Path) -> Path:
    sequence = root / "electricfan" / "electricfan-3"
    write_frames(sequence / "img", 4)
    (sequence / "groundtruth.txt").write_text("8,6,16,12\n8,6,16,12\n0,0,0,0\n40,30,20,15\n")
    (sequence / "full_occlusion.txt").write_text("0,1,0,0\n")
    (sequence / "out_of_view.txt").write_text("0,0,1,0")
    (sequence / "nlp.txt").write_text("white electric fan\n on the floor\n")
    return sequence


def test_lasot_folders_become_tracks_with_their_absence(convert: Convert, root: Path, tmp_path: Path) -> None:
    write_lasot(root)
    (record,) = convert("lasot", root)
    assert (record["id"], record["video"]) == ("electricfan-3-0", "electricfan/electricfan-3/img")
    (track,) = record["tracks"]
    assert track["absent"] == [1, 2] and track["name"] == "electric fan"
    assert record["conversations"][0]["value"] == (
        "<video>\nDescribe this video in one sentence, and focus on electric fan located in the coordinate list."
    )
    assert record["conversations"][1]["value"] == "white electric fan on the floor"
    (sample,) = read_samples(load_meta(tmp_path / "meta.json")[0])
    boxes = boxes_at(sample.tracks[0], np.arange(4), read_media_header(sample), "here")
    assert boxes.tolist() == [[100, 100, 300, 300], [0, 0, 0, 0], [0, 0, 0, 0], [500, 500, 750, 750]]


def test_captions_and_videos_of_the_challenge_go_with_lasot_tracks(
    convert: Convert, root: Path, shapes_root: Path, tmp_path: Path
) -> None:
    clip = sorted(shapes_root.glob("*/*/*.mp4"))[0]
    folder = root / "bird" / "bird-2"
    folder.mkdir(parents=True)
    (folder / "bird-2.mp4").write_bytes(clip.read_bytes())
    (folder / "groundtruth.txt").write_text("1,2,30,40\n" * 24)
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps({"captions": {"bird-2": ["a bird", "one bird"]}}))
    records = convert("lasot", root, "--captions", str(captions), "--prompt_form", "red_box")
    assert [(r["id"], r["video"]) for r in records] == [(f"bird-2-{k}", "bird/bird-2/bird-2.mp4") for k in (0, 1)]
    assert records[1]["conversations"][0]["value"].endswith("focus on the bird in the red coordinate box.")


def test_got10k_folders_become_tracks_with_their_absence(convert: Convert, root: Path) -> None:
    sequence = root / "train" / "GOT-10k_Train_000009"
    write_frames(sequence, 3)
    (sequence / "groundtruth.txt").write_text("8.0000,6.5000,16.0000,12.0000\n" * 3)
    (sequence / "absence.label").write_text("0\n0\n1\n")
    (sequence / "meta_info.ini").write_text("[METAINFO]\nobject_class: brown_bear\nmotion_class: walking\n")
    (record,) = convert("got10k", root)
    assert (record["id"], record["video"]) == ("GOT-10k_Train_000009-0", "train/GOT-10k_Train_000009")
    assert record["tracks"][0] == {
        "name": "brown bear",
        "boxes": [[8, 6.5, 16, 12]] * 3,
        "by": "frame",
        "unit": "pixels",
        "order": "xywh",
        "absent": [2],
    }
    assert record["conversations"][1]["value"] == "brown bear walking"


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        ("llamafactory", [{"text": "hello"}], "source.json:1: .*'text'"),
        ("llamafactory", [{"conversations": turns("<image>a", "b")}], "1 '<image>' for 0 files"),
        ("llamafactory", [{"conversations": turns("a", "b"), "images": ["a.png"]}], "0 '<image>' for 1 files"),
        ("llamafactory", [{"conversations": turns("a", "b"), "audios": ["a.wav"]}], "sound is not supported"),
        ("llamafactory", [{"conversations": turns("a", "b"), "audio": "a.wav"}], "sound is not supported"),
        ("llamafactory", [{"conversations": turns("a", "b"), "kto_tag": False}], "has 'kto_tag': false"),
        (
            "ms-swift",
            [{"messages": turns("a", "b"), "label": False}],
            "'label': false: an answer that is not to be",
        ),
        (
            "ms-swift",
            [{"messages": [*turns("a"), {"from": "gpt", "value": "b", "loss": False}]}],
            "'loss': false",
        ),
        (
            "ms-swift",
            [{"messages": turns("a", "b"), "image": "a.png", "images": ["b.png"]}],
            "'images' and 'image'",
        ),
        ("llamafactory", [{"conversations": turns("<image>", "b"), "images": ["/etc/a.png"]}], "another --root"),
        ("llamafactory", [{"conversations": turns("<image>", "b"), "images": ["../a.png"]}], "leaves the dataset"),
        ("llamafactory", [{"conversations": [{"from": "function_call", "value": "{}"}]}], "tool calls"),
        ("llamafactory", [{"instruction": "a", "output": None}], "expected a speaker and a text"),
        ("llamafactory", "[]", "holds no records"),
        ("llamafactory", '[\n{"instruction": "a", "output": "b"},\n{', "source.json:3: "),
        ("ms-swift", {"query": "a", "response": "b", "history": ["x"]}, "pairs"),
        ("ms-swift", {"messages": turns("<bbox>", "b"), "objects": {"bbox": []}}, "fewer entries"),
        ("ms-swift", {"messages": turns("<bbox>", "b"), "objects": {"bbox": [[1, 2]]}}, "four numbers"),
        ("ms-swift", {"messages": turns("<bbox>", "b"), "objects": {"bbox": [[1, 2, 3, 4]]}}, "image_id"),
        ("ms-swift", swift_box(20, 10, 400, 60), "beyond the picture: expected pixels of 200 x 100"),
        ("ms-swift", swift_box(-100, 10, 40, 60), "beyond the picture"),
        ("ms-swift", swift_box(0.1, 0.1, 0.5, 0.6), "is in fractions: expected pixels"),
        ("ms-swift", swift_box(0, 0, 160, 60, bbox_type="norm1"), "beyond the picture: expected 0 to 1"),
        ("coco", [], "the lists images, annotations, categories"),
        ("coco", coco(categories=[]), "category 1"),
        ("coco", coco(images=[]), "image 7"),
        ("coco", coco(categories=[{"id": "x", "name": "gun"}]), "'id'"),
        ("coco", coco(annotations=[{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3]}]), "x y w h"),
        ("coco", coco(images=[{"id": 7, "file_name": "a.png", "width": 0, "height": 9}]), "'width' and 'height'"),
        (
            "coco",
            coco(annotations=[{"image_id": 7, "category_id": 1, "bbox": [150, 50, 250, 40]}]),
            "beyond the picture",
        ),
        (
            "coco",
            coco(annotations=[{"image_id": 7, "category_id": 1, "bbox": [300, 10, 20, 20]}]),
            "pixels of 200 x 100",
        ),
        (
            "coco",
            coco(annotations=[{"image_id": 7, "category_id": 1, "bbox": [0.1, 0.2, 0.3, 0.4]}]),
            "is in fractions",
        ),
        ("coco", coco(annotations=[]), "holds no records"),
        ("refcoco", [{**REGION, "sent": 3}], "source.json:1: .*'sent' is 3: expected a text"),
        ("refcoco", [REGION, {**REGION, "bbox": [1, 2, 3]}], "source.json:1: .*expected 'bbox' as x1 y1 x2 y2"),
        ("refcoco", [{**REGION, "bbox": [20, 10, 20, 60]}], "has no area"),
        ("refcoco", [{**REGION, "height": 0}], "'width' and 'height'"),
        ("refcoco", [{**REGION, "height": 300}], "says 200 x 300, the picture is shown at 200 x 100"),
        ("refcoco", [{**REGION, "bbox": [20, 10, 230, 60]}], "beyond the picture: expected pixels of 200 x 100"),
        ("refcoco", [{**REGION, "bbox": [0.1, 0.1, 0.5, 0.6]}], "is in fractions: expected pixels"),
        ("refcoco", ["a"], "source.json:1"),
    ],
)
def test_what_cannot_be_converted_is_named(
    kind: str, content: Any, said: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "source.json").write_text(content if isinstance(content, str) else json.dumps(content))
    out = tmp_path / "out" / "lines.jsonl"
    assert main(["convert-data", "--from", kind, str(root / "source.json"), "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert re.search(said, error) and all(line.startswith("error: ") for line in error.splitlines())
    assert str(root) in error and error.count("nothing was written") <= 1
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("groundtruth.txt", "1,2,3,4\n", "groundtruth.txt: has 1 lines for the 4 frames"),
        ("groundtruth.txt", "1,2,3\n", "groundtruth.txt:1: expected four"),
        ("full_occlusion.txt", "0,1\n", "2 absence labels for 4 boxes"),
        ("out_of_view.txt", "0,0,yes,0\n", "out_of_view.txt:1: holds 'yes'"),
        ("nlp.txt", " \n", "give --captions"),
    ],
)
def test_a_broken_sequence_is_named(
    file: str, content: str, said: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (write_lasot(root) / file).write_text(content)
    assert main(["convert-data", "--from", "lasot", str(root), "--out", str(tmp_path / "out.jsonl")]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["lasot", "got10k"])
def test_a_folder_without_sequences_is_named(
    kind: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert-data", "--from", kind, str(root), "--out", str(tmp_path / "out.jsonl")]) == 1
    assert f"{root}: holds no sequence" in capsys.readouterr().err


def test_all_faults_of_a_source_are_told_at_once_and_what_has_one_can_be_left_out(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = [{"role": "user", "content": "<image>Where is <ref-object>?"}, {"role": "assistant", "content": "<bbox>"}]

    def line(*boxes: list[float], **changes: Any) -> dict[str, Any]:
        return {"messages": talk, "images": ["a.png"], "objects": {"ref": ["cup"], "bbox": list(boxes)}, **changes}

    lines = [
        line([20, 10, 100, 60]),
        line([100, 60, 20, 10]),
        line([300, 10, 320, 60]),
        line([20, 10, 100, 60], [1, 2, 3, 4]),
        line(objects={}),
        line([20, 10, 100, 60], rejected_response="no"),
        line([20, 10, 20.1, 60]),
    ]
    source, out, left = root / "source.jsonl", tmp_path / "lines.jsonl", tmp_path / "left.txt"
    source.write_text("\n".join(map(json.dumps, lines)))
    argv = ["convert-data", "--from", "ms-swift", str(source), "--out", str(out)]
    said = [
        "has no area",
        "reaches beyond",
        "0 names and 1 boxes more",
        "'<ref-object>' is left",
        "'rejected_response'",
    ]
    assert main(argv) == 1 and not out.exists()
    error = capsys.readouterr().err
    assert [re.search(f"source.jsonl:{n}: .*{text}", error) is not None for n, text in enumerate(said, 2)] == [True] * 5
    assert main([*argv, "--skip_bad", str(left)]) == 0
    assert [re.search(text, fault) is not None for text, fault in zip(said, left.read_text().splitlines(), strict=True)]
    answers = [json.loads(text)["conversations"][1]["value"] for text in out.read_text().splitlines()]
    assert answers == ["<box>[[100, 100, 500, 600]]</box>", "<box>[[100, 100, 101, 600]]</box>"]


def test_tracks_with_nan_and_a_byte_order_mark(convert: Convert, root: Path) -> None:
    text = write_lasot(root) / "groundtruth.txt"
    text.write_text("\ufeff8,6,16,12\nNaN,NaN,NaN,NaN\n0,0,0,0\n40,30,20,15\n")
    (record,) = convert("lasot", root)
    assert record["tracks"][0]["boxes"] == [[8, 6, 16, 12], [0, 0, 0, 0], [0, 0, 0, 0], [40, 30, 20, 15]]
