"""The examples do what their first lines say."""

from __future__ import annotations

import csv
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from internvl_chat.boxes import parse_box_text
from internvl_chat.data.records.annotations import DatasetEntry, load_meta, read_samples
from internvl_chat.data.records.intentvc import boxes_path_of, video_path_of
from internvl_chat.files import read_json
from tests.helpers import ROOT


@pytest.fixture
def run_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """An example run with these arguments; what it printed."""

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_a_clip_is_captioned_and_follows_the_box_or_not(
    run_example: Callable[..., str], captioner_folder: Path, shapes_entry: DatasetEntry, tmp_path: Path
) -> None:
    pairs = read_json(shapes_entry.root / "other_target.json")
    own, other = (video_path_of(shapes_entry.root, i) for i in sorted(pairs.items())[0])
    said = run_example("caption_a_clip.py", captioner_folder, own, boxes_path_of(own), "circle")
    tracks = boxes_path_of(own), boxes_path_of(other)
    compared = run_example("follow_the_box.py", captioner_folder, own, *tracks, tmp_path / "own.png")
    assert said.strip()
    # A model of random weights writes line breaks too.
    assert re.search(r"\Aown box: .*^no box: .*^other's box: ", compared, re.DOTALL | re.MULTILINE)
    assert Image.open(tmp_path / "own.png").width > 300


def test_nothing_but_the_caption_is_printed(captioner_folder: Path, shapes_entry: DatasetEntry) -> None:
    """In a process of its own, as in a notebook: the libraries keep what they cannot use to themselves."""
    video = video_path_of(shapes_entry.root, min(read_json(shapes_entry.root / "other_target.json")))
    example = ROOT / "examples" / "caption_a_clip.py"
    run = subprocess.run(
        [sys.executable, str(example), str(captioner_folder), str(video), str(boxes_path_of(video)), "circle"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() and run.stderr == ""


def test_own_clips_become_records(run_example: Callable[..., str], shapes_root: Path, tmp_path: Path) -> None:
    """Four clips without any layout, and their boxes in a table."""
    rows = []
    for number, video in enumerate(sorted(shapes_root.glob("*/*/*.mp4"))[:4]):
        shutil.copyfile(video, tmp_path / f"take {number}.mp4")
        for frame, (x, y, w, h) in enumerate(parse_box_text(video.with_name("object_bboxes.txt")).tolist()):
            if w and h:
                said = f"toy {number} moves" if f"take {number}.mp4" not in str(rows) else ""
                rows.append([f"take {number}.mp4", "a", "toy", frame, x, y, x + w, y + h, said])
    with (tmp_path / "boxes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow("video object label frame x1 y1 x2 y2 caption".split())
        writer.writerows(rows)
    said = run_example("own_data.py", tmp_path, tmp_path / "boxes.csv", tmp_path / "out")
    (entry,) = load_meta(tmp_path / "out" / "meta.json")
    samples = read_samples(entry)
    assert said.startswith("4 records")
    assert [sample.id for sample in samples] == [f"take {number}-a-0" for number in range(4)]
    assert [sample.object_name for sample in samples] == ["toy"] * 4
    assert [sample.turns[-1].text for sample in samples] == [f"toy {number} moves" for number in range(4)]
