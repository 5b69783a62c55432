"""`train`: the scripts of shell/ by name, with one word in all commands for what they read from the environment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from internvl_chat.__main__ import main
from internvl_chat.commands import train
from tests.helpers import ROOT
from tests.test_recipes import flags_of, started

SHELL = ROOT / "shell"


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What takes the place of this process."""
    found: dict[str, Any] = {}

    def take_the_place(_: str, command: list[str], environment: dict[str, str]) -> None:
        found.update(command=command, env=environment)
        raise SystemExit(0)

    monkeypatch.setattr(os, "execvpe", take_the_place)
    return found


def test_every_script_that_can_be_started_has_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--list"]) == 0
    out, err = capsys.readouterr()
    assert " train roiattention_ml --meta META.json  # " in err
    lines = out.splitlines()
    names = [line.split()[0] for line in lines]
    scripts = {path for path in SHELL.rglob("*.sh") if path.relative_to(SHELL).as_posix() not in train._SHARED}
    assert names[0] == "tiny" and {train.script_of(name) for name in names} == scripts
    assert len(names) == len(scripts) > 48
    assert "InternVL3-8B, LoRA" in next(line for line in lines if line.startswith("internvl3_8b_lora "))
    assert all(line[38] == " " and line[39:].strip() for line in lines)


@pytest.mark.parametrize(
    ("typed", "settings", "flags"),
    [
        ("--meta d.json --out runs/a --gpus 3", {"META_PATH": "d.json", "OUTPUT_DIR": "runs/a", "GPUS": "3"}, []),
        ("--meta=d.json --learning-rate 1e-3", {"META_PATH": "d.json"}, ["--learning_rate", "1e-3"]),
        ("--meta_path d.json --batch_size 6 --dry_run", {"BATCH_SIZE": "6"}, ["--meta_path", "d.json", "--dry_run"]),
        ("--help", {}, ["--help"]),
    ],
)
def test_words_become_what_the_script_takes(
    typed: str,
    settings: dict[str, str],
    flags: list[str],
    handed_over: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["intentvcnet", "train", "tiny", *typed.split()])
    with pytest.raises(SystemExit):
        main()
    assert handed_over["command"] == ["bash", str(SHELL / "tiny.sh"), *flags]
    assert handed_over["env"].items() >= settings.items()


def test_called_from_python_a_training_gives_back_its_log_and_its_status(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "mine.sh"
    script.write_text('echo "on ${META_PATH} with $*"\necho "error: no" >&2\nexit 3\n')
    assert main(["train", str(script), "--meta", "d.json", "--max_steps", "2"]) == 3
    said = capfd.readouterr()
    assert (said.out, said.err) == ("on d.json with --max_steps 2\nerror: no\n", "")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--json tiny --meta d.json", "--json goes with --list and --write"),
        ("", "say what to train: a recipe of 'train --list'"),
        ("tinny --meta d.json", "tinny: is no recipe and no script: did you mean tiny?"),
        ("tiny", "say what to train on: --meta META.json"),
        ("tiny --meta --gpus 2", "--meta: expected a value behind it"),
        ("--write tiny README.md", "README.md: is there already: give another file"),
        ("--write tiny shell", "shell: is a folder, expected a file to write"),
    ],
)
def test_what_cannot_be_trained_is_said(
    typed: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("META_PATH", raising=False)
    assert main(["train", *typed.split()]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.process
@pytest.mark.parametrize("recipe", ["tiny", "internvl3_1b_lora", "t2vid_minicpm_mix_30k", "artemis_finetune_ref"])
def test_a_written_recipe_starts_what_the_recipe_starts(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "mine.sh"
    assert main(["train", "--write", recipe, str(written), "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == {"script": str(written)}
    assert f"next: META_PATH=META.json bash {written} --dry_run" in told.err
    assert os.access(written, os.X_OK)
    lines = [line.split()[0] for line in written.read_text().splitlines() if line.startswith("  --")]
    assert len(lines) == len(set(lines)) > 8
    of_recipe, of_written = (flags_of(started(script, tmp_path)) for script in (train.script_of(recipe), written))
    assert of_written == of_recipe
    changed = written.read_text().replace("--learning_rate ", "--learning_rate 7")
    written.write_text(changed)
    assert flags_of(started(written, tmp_path))["--learning_rate"].startswith("7")


def test_completion_knows_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit, match="0"):
        main(["--print_completion", "bash"])
    text = capsys.readouterr().out
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    (flags,) = re.findall(r"^_shtab_intentvcnet_check_option_strings=\((.*)\)$", text, re.MULTILINE)
    assert "--html" in flags.split()
    assert text.rstrip().endswith("_shtab_intentvcnet intentvcnet")
