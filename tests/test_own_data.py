"""The README's four steps, typed as they stand there: from videos in a layout of one's own to a model's probes."""

from __future__ import annotations

import ast
import csv
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from internvl_chat.__main__ import main
from internvl_chat.boxes import parse_box_text
from internvl_chat.files import read_json
from internvl_chat.scoring.predictions import read_predictions
from tests.helpers import ROOT, run_python

pytestmark = pytest.mark.process

README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## Your own data in four steps")[2].partition("In Python:")[0]
LINES = re.findall(r"^ +(python -m internvl_chat .+)$", SECTION, re.MULTILINE)
# A model of two steps says little; it is the way that is tested.
SHORT = "--max_steps 2 --save_steps 2 --gpus 1 --batch_size 2 --per_device_batch_size 2".split()
FEW_WORDS = ["--max_new_tokens", "8"]


def key_frames(text: Path) -> Iterator[tuple[int, list[float]]]:
    """Every sixth box of a track, and the last one, as corners."""
    boxes = parse_box_text(text).tolist()
    present = [frame for frame, box in enumerate(boxes) if any(box)]
    for frame in sorted({*present[::6], present[-1]}):
        x, y, w, h = boxes[frame]
        yield frame, [x, y, x + w, y + h]


def write_own_data(shapes: Path, folder: Path) -> None:
    """Four videos in folders of somebody's own, and a table: eight rows or so an object, two objects in each video."""
    pairs = read_json(shapes / "other_target.json")
    firsts = [first for first in sorted(pairs) if first < pairs[first]][:4]
    rows = []
    for number, first in enumerate(firsts):
        name = f"take {number % 2}/{'abcd'[number]}.mp4"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shapes / first.split("-")[0] / first / f"{first}.mp4", folder / name)
        for video_id in (first, pairs[first]):
            text = shapes / video_id.split("-")[0] / video_id / "object_bboxes.txt"
            for place, (frame, corners) in enumerate(key_frames(text)):
                said = f"a {video_id.split('-')[0]} slides" if place == 0 else ""
                rows.append([name, video_id, video_id.split("-")[0], frame, *corners, said])
    with (folder / "boxes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow("video,object,label,frame,x1,y1,x2,y2,caption".split(","))
        writer.writerows(rows)


def train_twice(words: list[str], folder: Path) -> None:
    """Train as it is typed, and beside it once more: two runs that start together on one machine both finish."""
    argv = ["-m", "internvl_chat", *words, *SHORT]
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(run_python, *argv, *more, cwd=folder) for more in ([], ["--out", "work_dirs/other"])]
    for done in (run.result() for run in runs):
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (folder / "work_dirs" / "other" / "run.json").is_file()


def test_the_four_steps(
    shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_own_data(shapes_root, tmp_path / "DATA")
    monkeypatch.chdir(tmp_path)
    commands = [shlex.split(line)[3:] for line in LINES]
    assert [words[0] for words in commands] == "convert-data check train eval score report control".split()
    printed = {}
    for words in commands:
        if words[0] == "train":
            train_twice(words, tmp_path)
        else:
            code = main([*words, *FEW_WORDS] if words[0] in ("eval", "control") else words)
            printed[words[0]] = capsys.readouterr().out
            assert code == 0, words
    assert "0 errors" in printed["check"]
    records = [json.loads(line) for line in (tmp_path / "data.jsonl").read_text().splitlines()]
    assert len(records) == 8 and len({record["video"] for record in records}) == 4
    assert len(read_predictions(tmp_path / "results")) == 8
    assert "CIDEr" in printed["score"]
    # The two objects of a video are each other's other object.
    assert re.search(r"^swap .*\b8\b", printed["control"], re.MULTILINE), printed["control"]
    for name in ("check.html", "captions.png", "report.html", "control.png", "work_dirs/mine/run.json"):
        assert (tmp_path / name).stat().st_size > 1000, name
    run_notebook(ROOT / "examples" / "own_data.ipynb")
    assert len(read_predictions(tmp_path / "said.json")) == 8
    assert (tmp_path / "notebook.html").stat().st_size > 1000


def run_notebook(path: Path) -> None:
    """The code of a notebook, cell after cell, and what each cell's last expression shows."""
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    shown = []
    for cell in cells:
        program = ast.parse("".join(cell["source"]))
        last = program.body[-1]
        if isinstance(last, ast.Expr):
            kept = ast.Assign([ast.Name("shown", ast.Store())], last.value)
            program.body[-1] = ast.copy_location(kept, last)
        exec(compile(ast.fix_missing_locations(program), str(path), "exec"), names)
        shown.append(names.pop("shown", None))
    pictures = [value._repr_png_() for value in shown if hasattr(value, "_repr_png_")]
    assert len(pictures) == 3 and all(picture.startswith(b"\x89PNG") for picture in pictures)
