"""What the training script and the recipes print: its own flags, and --dry_run of every script in shell/."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from transformers import HfArgumentParser, TrainingArguments

from tests.families import FAMILIES, write_family
from tests.golden.frozen import check_frozen, run_script
from tests.helpers import ROOT

pytestmark = pytest.mark.process

RECIPES = sorted((ROOT / "shell").glob("internvl*/*/*.sh"))
TRAINING_SCRIPT = "internvl_chat/train/finetune_w_bboxes_ml.py"
# Side of a tile that all the small bases take.
TILE = ("--force_image_size", "80")


@pytest.fixture(autouse=True)
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The width that argparse fills."""
    monkeypatch.setenv("COLUMNS", "120")


def test_help_of_the_training_script() -> None:
    """The flags that are not transformers' own, or not as transformers has them."""

    def flags(text: str) -> list[str]:
        first, *others = text.split("\n  --")
        return others

    of_transformers = set(flags(HfArgumentParser(TrainingArguments).format_help()))
    own = [text for text in flags(run_script(TRAINING_SCRIPT, ["--help"])) if text not in of_transformers]
    check_frozen("help_training.txt", "".join(f"--{text}\n" for text in own))


def base_of(script: Path, folder: Path) -> Path:
    """A base in the place of a recipe's own: of its family where the template depends on it; a config.json alone."""
    name = script.name.split("_dynamic")[0]
    family = next((family for family in FAMILIES if name.startswith(f"{family}_")), None)
    if family is not None:
        return folder / family if (folder / family).is_dir() else write_family(folder / family, family, False)
    (folder / "base").mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "quickstart" / "base" / "config.json", folder / "base")
    return folder / "base"


def described(script: Path, folder: Path) -> list[str]:
    """The lines that a recipe prints with --dry_run, with the place of this repository left out."""
    # The shell hands over to a `python` that tells what it was given, which is then run in this process.
    python = folder / "bin" / "python"
    python.parent.mkdir(exist_ok=True)
    python.write_text('#!/bin/sh\nfor word in "$@"; do echo "=$word"; done\n')
    python.chmod(0o755)
    environment = {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder)}
    # The repository's own are to be edited before they can be read.
    environment["META_PATH"] = "not_there.json"
    # A free port is another one every time.
    environment["MASTER_PORT"] = "34229"
    environment["MODEL_PATH"] = str(base_of(script, folder / "bases").relative_to(folder))
    done = subprocess.run(
        ["sh", str(script), "--dry_run", *TILE], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    command, *words = done.stdout.splitlines()
    assert words.pop(0) == f"={ROOT / TRAINING_SCRIPT}"
    text = "\n".join([command, run_script(TRAINING_SCRIPT, [word.removeprefix("=") for word in words])])
    return text.replace(f"{ROOT}/", "").splitlines()


def test_dry_run_of_every_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    texts = {str(script.relative_to(ROOT)): described(script, tmp_path) for script in RECIPES}
    first, *others = texts.values()
    shared = [line for line in first if all(line in text for text in others)]
    lines = ["in all of them:", *shared]
    for name, text in texts.items():
        lines += [f"\n{name}:", *(line for line in text if line not in shared)]
    check_frozen("dry_run.txt", "\n".join(lines) + "\n")
