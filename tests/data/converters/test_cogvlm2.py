"""CogVLM2's own fine-tuning folders become records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from internvl_chat.__main__ import main
from internvl_chat.data.checking.check import check_meta
from internvl_chat.data.records.annotations import load_meta, read_samples
from tests.data.clips import write_clip


def label(folder: Path, name: str, *said: str) -> None:
    folder.mkdir(exist_ok=True)
    turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]
    (folder / f"{name}.json").write_text(json.dumps({"conversations": turns}))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two pictures, two videos, a file that is neither, and labels of all but it."""
    folder = tmp_path / "demo"
    for name in ("images", "videos"):
        (folder / name).mkdir(parents=True)
    for name in ("b.png", "a.jpg"):
        Image.new("RGB", (20, 30)).save(folder / "images" / name)
    write_clip(folder / "videos" / "c.mp4", 5)
    write_clip(folder / "videos" / "d 1.mkv", 7)
    (folder / "images" / "readme.txt").write_text("a")
    label(folder / "labels_en", "a", "What?", "A cup.", "Whose?", "Mine.")
    label(folder / "labels_en", "b", "Which?", "The second.")
    label(folder / "labels_en", "c", "What moves?", "A square.")
    label(folder / "labels_en", "d 1", "Where?", "There.")
    return folder


def convert(source: Path, out: Path, *flags: str) -> int:
    words = ["--from", "cogvlm2", "--out", str(out), "--meta_out", str(out.with_suffix(".meta")), *flags]
    return main(["convert-data", str(source), *words])


def test_pictures_and_videos_come_with_their_conversations(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert convert(source, out) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    media = [(record["id"], record.get("image"), record.get("video")) for record in records]
    assert media == [
        ("a", "images/a.jpg", None),
        ("b", "images/b.png", None),
        ("c", None, "videos/c.mp4"),
        ("d 1", None, "videos/d 1.mkv"),
    ]
    assert [turn["value"] for turn in records[0]["conversations"]] == ["<image>\nWhat?", "A cup.", "Whose?", "Mine."]
    assert records[2]["conversations"][0] == {"from": "human", "value": "<video>\nWhat moves?"}
    assert [str(finding) for finding in check_meta(out.with_suffix(".meta"), workers=1).findings] == []
    assert len(read_samples(load_meta(out.with_suffix(".meta"))[0])) == 4


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda f: label(f / "labels_zh", "a", "?", "!"),
            "expected one folder labels, or labels_en, in it, found labels",
        ),
        (lambda f: label(f / "labels_en", "e", "?", "!"), "e.json: there is no picture and no video of this name"),
        (lambda f: (f / "labels_en" / "a.json").write_text('["a"]'), "expected 'conversations', a list of 'role' and"),
        (lambda f: (f / "labels_en" / "a.json").write_text('{"conversations": [{"role": "user"}]}'), "a turn is"),
        (lambda f: (f / "labels_en" / "a.json").write_text("{"), "a.json"),
        (
            lambda f: [(f / n / f"a{s}").touch() for n, s in (("images", ".png"), ("videos", ".mp4"))],
            "a.json: may be of ",
        ),
        (lambda f: [(f / n).rename(f / f"{n}_") for n in ("images", "videos")], "expected a folder images or videos"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, told: str
) -> None:
    change(source)
    assert convert(source, tmp_path / "out.jsonl") == 1
    complained = capsys.readouterr().err
    assert complained.startswith("error: ") and told in complained and complained.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()
