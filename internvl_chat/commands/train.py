"""Train by a recipe: what the scripts of shell/ start, from a checkout or from the installed package.

    python -m internvl_chat train --list
    python -m internvl_chat train tiny --meta data.json --out work_dirs/mine
    GPUS=8 python -m internvl_chat train internvl3_8b_lora --meta data.json --learning_rate 1e-5
    python -m internvl_chat train --write roiattention_ml mine.sh

Behind the recipe stand the flags of the training script, which win over the recipe's own, and words for what the
scripts read from the environment: --model, --meta, --out, --gpus, --batch_size and --per_device_batch_size. With
--dry_run nothing is trained: settings, memory and time are printed. --write makes a script of a recipe, with all its
values in it, to edit.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from internvl_chat.command_line import meant, program
from internvl_chat.commands.options import add_json, file_to_write, tell

# Words here, and the settings that the scripts read from the environment.
_SETTINGS = {
    "--model": "MODEL_PATH",
    "--meta": "META_PATH",
    "--out": "OUTPUT_DIR",
    "--gpus": "GPUS",
    "--batch_size": "BATCH_SIZE",
    "--per_device_batch_size": "PER_DEVICE_BATCH_SIZE",
}
# Scripts that others start.
_SHARED = ("launch.sh", "finetune.sh", "artemis/stage.sh", "cogvlm2/finetune.sh", "t2vid/minicpm.sh")
_OF_GUIDE = "_dynamic_res_2nd_finetune"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--list", action="store_true", help="name the recipes, and what each one trains")
    add("--write", nargs=2, metavar=("RECIPE", "FILE"), help="write a recipe as a script with all its values, to edit")
    add_json(parser)
    add("recipe", nargs="?", metavar="RECIPE", help="a name of --list, or the path of such a script")
    add("flags", nargs=argparse.REMAINDER, metavar="FLAGS", help="as the recipe's script takes them")


def run(args: argparse.Namespace) -> int:
    from internvl_chat.contracts import UserError

    if args.list:
        named = {name: about(script) for name, script in recipes().items()}
        tell(args, "\n".join(f"{name:<39}{text}" for name, text in named.items()), **named)
        return 0
    if args.write:
        path = _write(*args.write)
        tell(args, f"{path}: a script to edit", script=path)
        return 0
    if args.recipe is None:
        raise UserError("say what to train: a recipe of 'train --list'")
    if args.json:
        raise UserError("--json goes with --list and --write: what a training did is in its folder's run.json")
    script = script_of(args.recipe)
    settings, flags = split_settings(args.flags)
    asks_only = {"--help", "-h"} & set(flags)
    if not asks_only and "META_PATH" not in {**os.environ, **settings} and not _has(flags, "--meta_path"):
        raise UserError("say what to train on: --meta META.json; annotate and convert-data write such a file")
    command = ["bash", str(script), *flags]
    told = environment() | settings | {"CALLED_AS": program()}
    sys.stdout.flush()
    if args.is_program:
        os.execvpe(command[0], command, told)
    return _run_beside(command, told)


def _run_beside(command: list[str], told: Mapping[str, str]) -> int:
    """Run a script and show what it says where this process does, as in a notebook's cell."""
    with subprocess.Popen(command, env=told, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
    return process.returncode


def recipes_root() -> Path:
    """The folder that shell/ lies in: inside the installed package, or the checkout."""
    package = Path(__file__).resolve().parents[1]
    return package / "recipes" if (package / "recipes").is_dir() else package.parent


def recipes() -> dict[str, Path]:
    """The scripts to start by name; the smallest comes first."""
    shell = recipes_root() / "shell"
    scripts = (path for path in sorted(shell.rglob("*.sh")) if path.relative_to(shell).as_posix() not in _SHARED)
    named = {_name_of(path): path for path in scripts}
    return {"tiny": named.pop("tiny"), **named}


def _name_of(script: Path) -> str:
    """A script's name, after its folder where that says of which base it is."""
    folder = "" if script.parent.name in ("shell", "2nd_finetune") else f"{script.parent.name}_"
    return folder + script.stem.replace(_OF_GUIDE, "")


def about(script: Path) -> str:
    """What the first line of a script says of it."""
    text = script.read_text(encoding="utf-8").splitlines()[1].removeprefix("# ")
    return text.partition("; the values are")[0].rstrip(".")


def script_of(recipe: str) -> Path:
    """The script of a recipe's name, or of a path.

    Raises:
        UserError: neither is there.
    """
    from internvl_chat.contracts import UserError

    known = recipes()
    if recipe in known:
        return known[recipe]
    if Path(recipe).is_file():
        return Path(recipe)
    raise UserError(f"{recipe}: is no recipe and no script: {meant(recipe, known, 'train --list names the recipes')}")


def split_settings(flags: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The settings for the environment among the flags, and the others.

    Raises:
        UserError: a setting has no value.
    """
    from internvl_chat.contracts import UserError

    settings: dict[str, str] = {}
    others: list[str] = []
    words = iter(flags)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag not in _SETTINGS:
            others.append(word)
            continue
        value = value if equals else next(words, "")
        if not value or value.startswith("--"):
            raise UserError(f"{flag}: expected a value behind it")
        settings[_SETTINGS[flag]] = value
    return settings, others


def environment() -> dict[str, str]:
    """What a script finds: the Python that runs this command, activated or not."""
    folder = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": os.pathsep.join([folder, os.environ.get("PATH", os.defpath)])}


def _has(flags: Sequence[str], name: str) -> bool:
    return any(word.partition("=")[0] == name for word in flags)


def _write(recipe: str, target: str) -> Path:
    from internvl_chat.contracts import UserError
    from internvl_chat.files import write_text

    try:
        path = file_to_write(target)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"--write {error}") from error
    if path.exists():
        raise UserError(f"--write {path}: is there already: give another file")
    told = environment() | {"PRINT_RECIPE": recipe}
    done = subprocess.run(["bash", str(script_of(recipe))], env=told, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{recipe}: {done.stderr.strip()}")
    lines = done.stdout.splitlines()
    # A recipe that goes by another one says some flags twice: the last one counts.
    last = {line.split()[0]: number for number, line in enumerate(lines) if line.startswith("  --")}
    kept = (line for number, line in enumerate(lines) if not line.startswith("  --") or number in last.values())
    write_text(path, "".join(f"{line}\n" for line in kept))
    path.chmod(0o755)
    return path
