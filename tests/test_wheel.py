"""The installed package in an empty folder, away from the checkout: recipes, data, checks, the way to a training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from internvl_chat import __version__
from tests.helpers import ROOT

pytest.importorskip("hatchling", reason="builds the wheel: requirements/dev.txt")
pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed into."""
    folder = tmp_path_factory.mktemp("installed")
    before = sorted(path.name for path in ROOT.iterdir())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    built = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder / "wheel"), str(ROOT)]
    subprocess.run(built, check=True, capture_output=True, timeout=120)
    (wheel,) = (folder / "wheel").glob("*.whl")
    put = [*pip, "install", "--no-deps", "--no-index", "--target", str(folder / "site"), str(wheel)]
    subprocess.run(put, check=True, capture_output=True, timeout=120)
    assert sorted(path.name for path in ROOT.iterdir()) == before, "building leaves something behind"
    return folder / "site"


def test_the_installed_program_works_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    def typed(line: str, code: int = 0) -> str:
        env = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
        argv = [sys.executable, str(installed / "bin" / "intentvcnet"), *line.split()]
        done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    assert typed("--version") == f"intentvcnet {__version__}\n"
    assert typed("chek", 2).startswith("usage: intentvcnet COMMAND ")
    recipes = typed("train --list").splitlines()
    assert recipes[0].startswith("tiny ") and any(line.startswith("roiattention_ml ") for line in recipes)

    typed("shapes --out clips --train_clips 1 --public_clips 0 --private_clips 0")
    typed("npy --root clips --workers 1")
    typed("annotate --captions clips/train.json --out data.jsonl --meta_out data.json --root clips")
    assert "0 errors" in typed("check data.json")
    # The launcher finds the base, the DeepSpeed file and the training script inside the package.
    assert "did you mean --learning_rate?" in typed("train tiny --meta data.json --learing_rate 1", 1)
    typed("train --write tiny mine.sh")
    script = (tmp_path / "mine.sh").read_text()
    assert f"MODEL_PATH:-{installed}/internvl_chat/recipes/quickstart/base" in script
    assert f"--deepspeed {installed}/internvl_chat/recipes/zero_stage3_config.json" in script
    assert not (tmp_path / "work_dirs").exists()
