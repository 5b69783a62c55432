"""The README's four steps, typed as they stand there: from videos in a layout of one's own to a model's probes.

Three times: in a checkout, with the wheel that is installed away from it, and in the notebook.
"""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from internvl_chat import __version__
from internvl_chat.__main__ import main
from internvl_chat.boxes import parse_box_text
from internvl_chat.files import read_json
from internvl_chat.scoring.predictions import read_predictions
from tests.helpers import ROOT

pytest.importorskip("hatchling", reason="builds the wheel: requirements/dev.txt")
pytestmark = pytest.mark.process

README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## Your own data in four steps")[2].partition("In Python:")[0]
COMMANDS = [shlex.split(line)[3:] for line in re.findall(r"^ +(python -m internvl_chat .+)$", SECTION, re.MULTILINE)]
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


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program `intentvcnet` from the wheel, in an environment with this one's packages and not the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    before = sorted(path.name for path in ROOT.iterdir() if not path.name.startswith("."))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    built = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder / "wheel"), str(ROOT)]
    subprocess.run(built, check=True, capture_output=True, timeout=300)
    (wheel,) = (folder / "wheel").glob("*.whl")
    assert sorted(path.name for path in ROOT.iterdir() if not path.name.startswith(".")) == before
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    put = [*pip, "--python", str(python), "install", "--no-deps", "--no-index", "--no-compile", str(wheel)]
    subprocess.run(put, check=True, capture_output=True, timeout=300)
    # Links of this environment, such as that to the checkout, do not count in a folder that a link names.
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "packages.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    torchrun = python.with_name("torchrun")
    torchrun.write_text(f"#!{python}\nfrom torch.distributed.run import main\n\nmain()\n")
    torchrun.chmod(0o755)
    return python.with_name("intentvcnet")


def outside() -> dict[str, str]:
    """The environment of a program that knows nothing of the checkout; what DeepSpeed compiled is taken as it is."""
    torchrun = ["bash", "-c", "command -v torchrun | cksum | cut -d ' ' -f 1"]
    name = subprocess.run(torchrun, check=True, capture_output=True, text=True).stdout.strip()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "torch_extensions" / name
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**kept, "OMP_NUM_THREADS": "1", "TORCH_EXTENSIONS_DIR": str(cache)}


@pytest.fixture(scope="module")
def walked(installed: Path, shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Two folders with data, prepared and trained on as the README says, at the same time: here and as installed."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("checkout", "wheel")}
    programs = {"checkout": [sys.executable, "-m", "internvl_chat"], "wheel": [str(installed)]}
    environments = {"checkout": {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, "wheel": outside()}

    def typed(where: str, *words: str) -> subprocess.CompletedProcess[str]:
        argv, env = [*programs[where], *words], environments[where]
        return subprocess.run(
            argv, cwd=folders[where], env=env, capture_output=True, text=True, timeout=600, check=False
        )

    for where, folder in folders.items():
        write_own_data(shapes_root, folder / "DATA")
        for words in COMMANDS[:2]:
            done = typed(where, *words)
            assert done.returncode == 0, done.stderr
    with ThreadPoolExecutor() as pool:
        runs = {where: pool.submit(typed, where, *COMMANDS[2], *SHORT) for where in folders}
    for where, run in runs.items():
        done = run.result()
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        program = "intentvcnet" if where == "wheel" else "python -m internvl_chat"
        assert done.stderr.splitlines()[-1].startswith(f"next: {program} eval --model work_dirs/mine --meta data.json ")
    yield folders


def examine(folder: Path) -> None:
    """What the four steps leave behind in a folder."""
    records = [json.loads(line) for line in (folder / "data.jsonl").read_text().splitlines()]
    assert len(records) == 8 and len({record["video"] for record in records}) == 4
    assert len(read_predictions(folder / "results")) == 8
    for name in ("check.html", "captions.png", "report.html", "control.png", "work_dirs/mine/run.json"):
        assert (folder / name).stat().st_size > 1000, name


def examine_printed(printed: Mapping[str, str]) -> None:
    assert "CIDEr" in printed["score"]
    # The two objects of a video are each other's other object.
    assert re.search(r"^swap .*\b8\b", printed["control"], re.MULTILINE), printed["control"]


def test_the_four_steps(
    walked: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [words[0] for words in COMMANDS] == "convert-data check train eval score report control".split()
    monkeypatch.chdir(walked["checkout"])
    printed = {}
    for words in COMMANDS[3:]:
        assert main([*words, *FEW_WORDS] if words[0] in ("eval", "control") else words) == 0, words
        told = capsys.readouterr()
        printed[words[0]] = told.out
        assert told.err.splitlines()[-1].startswith("next: "), words
    examine(walked["checkout"])
    examine_printed(printed)


# Types each command into the installed program itself, in one process, which spares the imports of the next ones.
_TYPE_ALL = """
import json, runpy, sys
from contextlib import redirect_stdout
from io import StringIO

program, *lines = sys.argv[1:]
printed = {}
for line in map(json.loads, lines):
    sys.argv = [program, *line]
    try:
        with redirect_stdout(StringIO()) as said:
            runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        assert end.code == 0, (line, end.code)
    printed[line[0]] = said.getvalue()
import internvl_chat
print(json.dumps({"package": internvl_chat.__file__, "printed": printed}))
"""


def test_the_four_steps_of_the_installed_program(installed: Path, walked: dict[str, Path]) -> None:
    lines = [json.dumps([*words, *FEW_WORDS] if words[0] in ("eval", "control") else words) for words in COMMANDS[3:]]
    argv = [str(installed.with_name("python")), "-c", _TYPE_ALL, str(installed), *lines]
    done = subprocess.run(
        argv, cwd=walked["wheel"], env=outside(), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert Path(told["package"]).is_relative_to(installed.parents[1])
    assert str(ROOT) not in (walked["wheel"] / "work_dirs/mine/run.json").read_text()
    nexts = [line for line in done.stderr.splitlines() if line.startswith("next: ")]
    assert len(nexts) == len(lines) and nexts[-1] == done.stderr.splitlines()[-1]
    assert "intentvcnet control --model" in nexts[0] and "python -m" not in "".join(nexts)
    examine(walked["wheel"])
    examine_printed(told["printed"])


def test_the_installed_program_names_recipes_and_mistakes(installed: Path, tmp_path: Path) -> None:
    def typed(line: str, code: int = 0) -> str:
        argv = [str(installed), *line.split()]
        done = subprocess.run(
            argv, cwd=tmp_path, env=outside(), capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    assert typed("--version") == f"intentvcnet {__version__}\n"
    assert typed("chek", 2).startswith("usage: intentvcnet COMMAND ")
    recipes = typed("train --list").splitlines()
    assert recipes[0].startswith("tiny ") and any(line.startswith("roiattention_ml ") for line in recipes)
    (tmp_path / "data.jsonl").touch()
    (tmp_path / "data.json").write_text('{"data": {"root": ".", "annotation": "data.jsonl"}}')
    # The launcher finds the base, the DeepSpeed file and the training script inside the package.
    assert "did you mean --learning_rate?" in typed("train tiny --meta data.json --learing_rate 1", 1)
    typed("train --write tiny mine.sh")
    script = (tmp_path / "mine.sh").read_text()
    inside = next(installed.parents[1].glob("lib/python*/site-packages/internvl_chat/recipes"))
    assert f"MODEL_PATH:-{inside}/quickstart/base" in script
    assert f"--deepspeed {inside}/zero_stage3_config.json" in script
    assert not (tmp_path / "work_dirs").exists()


def test_the_notebook(shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the table of boxes to a trained model, its captions, scores and probes, in the notebook's own cells."""
    write_own_data(shapes_root, tmp_path / "DATA")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run_notebook(ROOT / "examples" / "own_data.ipynb")
    assert len(read_predictions(tmp_path / "said.json")) == 8
    for name in ("notebook.html", "work_dirs/mine/run.json"):
        assert (tmp_path / name).stat().st_size > 1000, name
    assert len(json.loads((tmp_path / "control.json").read_text())["captions"]["swap 1"]) == 8


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
