"""What is written is run: the commands, paths and defaults of README and docs are those of the code."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import eval_const
from internvl_chat.__main__ import COMMANDS, build_parser

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
# What a user reads; docs/commands.md is made from the commands themselves.
PAGES = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8")
    for path in [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
    if path.name not in ("commands.md", "CHANGELOG.md")
}
TEXT = "\n".join(PAGES.values())
CODE_LINES = [
    line.strip() for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()
]
# Of the README before the package had rooms of its own.
TYPED_BEFORE = (REPOSITORY / "tests/golden/files/typed_before.txt").read_text(encoding="utf-8").splitlines()
COMMAND_LINES = [
    line.split("#")[0].strip() for line in CODE_LINES + re.findall(r"`(python -m internvl_chat [^`]+ [^`]+)`", TEXT)
]


@pytest.mark.parametrize(
    "line", sorted({line for line in COMMAND_LINES if line.startswith("python -m internvl_chat ")})
)
def test_command_parses(line: str) -> None:
    args = build_parser().parse_args(shlex.split(line)[3:])
    assert args.command in COMMANDS


@pytest.mark.parametrize("line", TYPED_BEFORE)
def test_what_earlier_versions_documented_still_parses(line: str) -> None:
    words = shlex.split(line)
    script = next((word for word in words if word.endswith(".py")), None)
    if script == "eval_const.py":
        eval_const.build_parser().parse_args(words[words.index(script) + 1 :])
    elif script == "generate_npy_bboxes.py":
        build_parser().parse_args(["npy", *words[words.index(script) + 1 :]])
    else:
        assert build_parser().parse_args(words[3:]).command in COMMANDS


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 140


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", PAGES[page])
    local = [target for target in targets if not target.startswith("http")]
    assert [target for target in local if not (REPOSITORY / page).parent.joinpath(target).exists()] == []


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make ([a-z0-9-]+)", TEXT, re.MULTILINE))))
def test_make_target_exists(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", ["generate_npy_bboxes.py", "eval_const.py"])
def test_root_script_explains_itself(script: str) -> None:
    assert f"`{script}`" in README
    done = subprocess.run([sys.executable, script, "--help"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m internvl_chat ")


def test_paths_exist() -> None:
    named = set(
        re.findall(r"\b((?:shell|quickstart|requirements|docs|tests|benchmarks|internvl_chat)/[\w./-]*\w)", TEXT)
    )
    examples = {
        example
        for text in PAGES.values()
        for example in re.findall(r"`(internvl_chat/[\w/]+\.py)`:\n\n```python", text)
    }
    generated = {"shell/data/intentvc_data-text.jsonl"} | examples
    missing = sorted(path for path in named - generated if not (REPOSITORY / path).exists())
    assert not missing


def test_documented_defaults_are_those_of_the_shell_script() -> None:
    script = (REPOSITORY / "shell/internvl3.0/2nd_finetune/roiattention_ml.sh").read_text(encoding="utf-8")
    defaults = dict(re.findall(r"(\w+)=\$\{\1:-([^}]*)\}", script))
    training = PAGES["docs/training.md"]
    for variable in ("MODEL_PATH", "META_PATH", "OUTPUT_DIR"):
        row = next(line for line in training.splitlines() if line.strip().startswith(f"| `{variable}`"))
        assert defaults[variable].removeprefix("./") in row
    assert (defaults["GPUS"], defaults["BATCH_SIZE"], defaults["PER_DEVICE_BATCH_SIZE"]) == ("4", "16", "1")
    assert "| 4, 16, 1 |" in training
