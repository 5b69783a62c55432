"""`convert-data --from` and `--to`: what goes out and comes back is the same, and pictures stay at their words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from internvl_chat.__main__ import main
from internvl_chat.data.converters.forms.image_chats import spread_frames
from internvl_chat.data.records.annotations import load_meta, read_samples

Back = Callable[..., Any]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve frames in clips/a, so that their digits differ; b.mp4 and pictures that are only named."""
    folder = tmp_path / "root"
    (folder / "clips" / "a").mkdir(parents=True)
    for number in range(1, 13):
        Image.new("RGB", (8, 6), (number, 0, 0)).save(folder / "clips" / "a" / f"frame_{number}.png")
    (folder / "b.mp4").write_bytes(b"")
    return folder


@pytest.fixture
def convert(root: Path, tmp_path: Path) -> Back:
    """Runs the command on some records, and returns what it wrote."""

    def run(way: str, kind: str, content: Any, *flags: str) -> Any:
        source, out = tmp_path / "source.json", tmp_path / f"out-{kind}.json{'' if way == '--to' else 'l'}"
        source.write_text(json.dumps(content))
        argv = ["convert-data", way, kind, str(source), "--root", str(root), "--out", str(out), *flags]
        assert main(argv) == 0
        text = out.read_text()
        return json.loads(text) if way == "--to" else [json.loads(line) for line in text.splitlines()]

    return run


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


def messages(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def image(**changes: str) -> dict[str, str]:
    return {"type": "image", **changes}


def text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}


OTHERS: dict[str, list[dict[str, Any]]] = {
    "llava": [
        {"id": "v_1", "video": "b.mp4", "conversations": turns("<video>\nWhat?", "that", "And?", "this")},
        {"id": 7, "image": ["p.png", "q.png"], "conversations": turns("<image><image>\nSame?", "no")},
        {"id": 8, "conversations": turns("Hi", "Ho")},
    ],
    "sharegemini": [
        {"video_id": "b", "conversations": turns("What is shown?", "A dog.")},
        {"video_id": "b", "conversations": turns("Who?", "He.", "Where?", "There.")},
        {"video_id": "clips/a", "conversations": turns("How long?", "Short.")},
    ],
    "videoinstruct": [
        {"q": "What?", "a": "That.", "video_id": "b"},
        {"q": "And?", "a": "This.", "video_id": "b"},
        {"q": "Where?", "a": "There.", "video_id": "clips/a"},
    ],
    "minicpm-v": [
        {
            "id": "m",
            "image": {f"<image_{n:02d}>": f"{n}.png" for n in range(12)},
            "conversations": messages(
                "".join(f"<image_{n:02d}>\n" for n in range(12)) + "Which?", "the last", "Why?", "so"
            ),
        },
        {"id": "t", "conversations": messages("Hi", "Ho")},
    ],
    "idefics3": [
        {
            "id": "i",
            "images": ["p.png", "q.png"],
            "messages": [
                {"role": "user", "content": [image(), text("\nand "), image(), text("\nSame?")]},
                {"role": "assistant", "content": [text("no")]},
            ],
        },
        {
            "id": "t",
            "images": [],
            "messages": [{"role": "user", "content": [text("Hi")]}, {"role": "assistant", "content": [text("Ho")]}],
        },
    ],
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_comes_in_goes_out_the_same(kind: str, convert: Back, root: Path, tmp_path: Path) -> None:
    records = convert("--from", kind, OTHERS[kind], "--meta_out", str(tmp_path / "meta.json"))
    samples = read_samples(load_meta(tmp_path / "meta.json")[0])
    assert len(samples) == len(OTHERS[kind]) == len({sample.id for sample in samples})
    assert convert("--to", kind, records) == OTHERS[kind]


def test_videos_are_found_by_their_id(convert: Back) -> None:
    records = convert("--from", "videoinstruct", [*OTHERS["videoinstruct"], {"q": "?", "a": "!", "video_id": "v_far"}])
    assert [(record["id"], record["video"]) for record in records] == [
        ("b-0", "b.mp4"),
        ("b-1", "b.mp4"),
        ("clips/a-0", "clips/a"),
        ("v_far-0", "v_far.mp4"),
    ]
    assert records[0]["conversations"] == turns("<video>\nWhat?", "That.")
    (record,) = convert("--from", "llava", [{"video": "b.mp4", "conversations": turns("What?\n<video>", "that")}])
    assert record["id"] == "source-0" and record["conversations"][0]["value"] == "What?\n<video>\n"


def test_a_picture_without_a_mark_gets_one(convert: Back, root: Path) -> None:
    Image.new("RGB", (8, 6)).save(root / "p.png")
    record = {"id": 1, "image": "p.png", "conversations": turns("What?", "That.")}
    assert convert("--to", "llava", [record])[0]["conversations"] == turns("<image>\nWhat?", "That.")
    (back,) = convert("--from", "llava", [{"id": 1, "images": ["p.png"], "conversations": turns("<image>\na", "b")}])
    assert back["image"] == "p.png"


def test_intentvcs_short_paths_and_boxes_are_not_lost(
    convert: Back, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "dog" / "dog-1").mkdir(parents=True)
    (root / "dog" / "dog-1" / "dog-1.mp4").touch()
    record = {"id": 1, "video": "dog-1/dog-1.mp4", "conversations": turns("<video>\na", "b")}
    (said,) = convert("--to", "sharegemini", [record])
    assert said["video_id"] == "dog/dog-1/dog-1"
    asked = {**record, "conversations": turns("<video>\nDescribe the dog located in the coordinate list.", "b")}
    (root / "dog" / "dog-1" / "object_bboxes.npy").touch()
    (tmp_path / "in.json").write_text(json.dumps([asked]))
    argv = ["convert-data", "--to", "llava", tmp_path / "in.json", "--root", root, "--out", tmp_path / "o.json"]
    assert main(list(map(str, argv))) == 1
    assert "has a box file beside its video, which the other format cannot say" in capsys.readouterr().err


def test_a_video_of_two_suffixes_is_not_chosen(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "b.mkv").touch()
    (tmp_path / "in.json").write_text(json.dumps([{"q": "a", "a": "b", "video_id": "b"}]))
    argv = [
        "convert-data",
        "--from",
        "videoinstruct",
        tmp_path / "in.json",
        "--root",
        root,
        "--out",
        tmp_path / "o.jsonl",
    ]
    assert main(list(map(str, argv))) == 1
    assert "'b' may be b.mkv or b.mp4: expected one video of this name" in capsys.readouterr().err


def test_images_follow_the_text_whatever_the_digits_of_their_numbers(convert: Back) -> None:
    files = {"<image_10>": "ten.png", "<image_2>": "two.png", "<image_001>": "one.png"}
    ask = {"image": files, "conversations": messages("First <image_001> then <image_2>, then <image_10>.", "ok")}
    after = {"image": files, "conversations": messages("Which is it?", "two")}
    one = {"id": 3, "image": "only.png", "conversations": messages("<image>\nWhat?", "it")}
    first, second, third = convert("--from", "minicpm-v", [ask, after, one])
    assert first["image"] == second["image"] == ["one.png", "two.png", "ten.png"]
    assert first["conversations"][0]["value"] == "First <image> then <image>, then <image>."
    assert second["conversations"][0]["value"] == "<image>\n<image>\n<image>\nWhich is it?"
    assert (third["id"], third["image"]) == (3, "only.png")


def test_a_folder_of_frames_becomes_numbered_images_in_order(convert: Back) -> None:
    record = {"id": 1, "video": "clips/a", "conversations": turns("<video>\nWhat?", "that")}
    (whole,) = convert("--to", "minicpm-v", [record])
    assert list(whole["image"].items())[1::9] == [
        ("<image_01>", "clips/a/frame_2.png"),
        ("<image_10>", "clips/a/frame_11.png"),
    ]
    assert whole["conversations"] == messages("".join(f"<image_{n:02d}>\n" for n in range(12)) + "What?", "that")
    (few,) = convert("--to", "idefics3", [record], "--num_frames", "3")
    assert few["images"] == [f"clips/a/frame_{n + 1}.png" for n in (2, 5, 9)]
    assert few["messages"][0]["content"] == [image(), text("\n"), image(), text("\n"), image(), text("\nWhat?")]


def test_frames_are_spread_as_video_chatgpt_spreads_them() -> None:
    assert spread_frames(24, 24) == list(range(24)) and spread_frames(3, 24) == [0, 1, 2]
    assert spread_frames(100, 4) == [12, 37, 62, 86]

    def slow(total: int, count: int) -> list[int]:
        size = (total - 1) / count
        return [(round(size * i) + round(size * (i + 1))) // 2 for i in range(count)]

    for total in range(25, 200, 7):
        assert spread_frames(total, 24) == slow(total, 24)


TRACK = {"name": "dog", "boxes": {"0": [0, 0, 5, 5]}, "unit": "pixels", "order": "xyxy"}
B_MP4 = {"id": 1, "video": "b.mp4", "conversations": turns("<video>\na", "b")}
A_FRAMES = {"id": 1, "video": "clips/a"}


@pytest.mark.parametrize("kind", OTHERS)
def test_all_faults_are_told_and_what_has_one_is_left_out(
    kind: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out, left = tmp_path / "source.jsonl", tmp_path / "out.jsonl", tmp_path / "left.txt"
    broken = {"conversations": 3, "messages": 3, "video": 3, "video_id": 3, "image": 3, "images": 3}
    sound = OTHERS[kind]
    lines = [json.dumps(sound[0]), json.dumps(broken), "{", "7", *map(json.dumps, sound[1:])]
    source.write_text("\n".join(lines))
    argv = ["convert-data", "--from", kind, str(source), "--root", str(root), "--out", str(out)]
    assert main(argv) == 1 and not out.exists()
    error = capsys.readouterr().err
    assert [f"{source}:{number}: " in error for number in range(1, 6)] == [False, True, True, True, False]
    assert main([*argv, "--skip_bad", str(left)]) == 0
    assert len(left.read_text().splitlines()) == 3 and len(out.read_text().splitlines()) == len(sound)
    # And back, where a record that the other form cannot say is left out likewise.
    told = {**json.loads(out.read_text().splitlines()[0]), "id": "told", "tracks": [TRACK], "video": "b.mp4"}
    if kind in ("llava", "sharegemini", "videoinstruct"):
        told.pop("image", None)
        out.write_text(json.dumps(told) + "\n" + out.read_text())
        back = tmp_path / "back.json"
        argv = ["convert-data", "--to", kind, str(out), "--root", str(root), "--out", str(back)]
        assert main(argv) == 1 and main([*argv, "--skip_bad", str(left)]) == 0
        assert json.loads(back.read_text()) == sound and "has 'tracks'" in left.read_text()


@pytest.mark.parametrize(
    ("way", "kind", "content", "said"),
    [
        ("--from", "llava", [{"video": 3, "conversations": turns("a", "b")}], ":1: a file is 3: expected its path"),
        ("--from", "llava", [{"id": 1, "conversations": []}], "'conversations' is \\[\\]: expected a list of turns"),
        ("--from", "llava", [{"video": "/etc/b.mp4", "conversations": turns("<video>", "b")}], "another --root"),
        ("--from", "llava", [{"videos": ["a", "b"], "conversations": turns("a", "b")}], "shows 2 videos: expected one"),
        ("--from", "llava", [{"image": "a", "images": ["b"], "conversations": turns("a", "b")}], "'image' and "),
        ("--from", "sharegemini", [{"conversations": turns("a", "b")}], ":1: a file is null"),
        ("--from", "videoinstruct", [{"q": "a", "video_id": "b"}], "expected 'q', 'a' and 'video_id'"),
        ("--from", "minicpm-v", [{"image": {"a": "b"}, "conversations": messages("a", "b")}], "the key \"a\""),
        ("--from", "minicpm-v", [{"conversations": messages("<image_3>", "b")}], "the text shows image 3"),
        (
            "--from",
            "minicpm-v",
            [{"conversations": messages(f"<image_{'7' * 5000}>", "b")}],
            "an image's number has 5000 digits",
        ),
        ("--from", "minicpm-v", [{"conversations": turns("a", "b")}], "expected 'role' and 'content'"),
        ("--from", "idefics3", [{"messages": [{"role": "user", "content": [image()]}]}], "expected 1 paths"),
        ("--from", "idefics3", [{"messages": [{"role": "user", "content": [{"type": "gif"}]}]}], "text or image"),
        ("--to", "minicpm-v", [B_MP4], "no folder of frames"),
        ("--to", "minicpm-v", [{**A_FRAMES, "conversations": turns("What?\n<video>", "b")}], "one <video>, with"),
        ("--to", "idefics3", [{**A_FRAMES, "conversations": turns("<video>\n<image>a", "b")}], "12 images have 13 pl"),
        ("--to", "idefics3", [{"id": 1, "image": ["p.png"], "conversations": turns("a", "b")}], "one <image> each"),
        ("--to", "llava", [{**B_MP4, "clip": [0, 1]}], "has 'clip'"),
        ("--to", "sharegemini", [{"id": 1, "conversations": turns("a", "b")}], "shows no video"),
        ("--to", "videoinstruct", [{**B_MP4, "conversations": turns("a", "b", "c", "d")}], "has 4 turns"),
        ("--to", "videoinstruct", [B_MP4, {**B_MP4, "video": "b.mkv"}], "b.mkv and b.mp4 would both be 'b' there"),
        ("--to", "llava", [], "holds no records"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_named(
    way: str, kind: str, content: Any, said: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "source.json", tmp_path / "out.jsonl"
    source.write_text(json.dumps(content))
    assert main(["convert-data", way, kind, str(source), "--root", str(root), "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert re.search(said, error) and str(source) in error and not out.exists()
