"""What can be said of a run's settings in a moment, before torchrun starts a process that imports torch.

    python internvl_chat/train/start_checks.py FLAGS

Flags are read off the source of the dataclasses that own them: importing those takes as long as starting the run.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from internvl_chat.choices import CONTROLS
from internvl_chat.command_line import meant
from internvl_chat.contracts import UserError
from internvl_chat.data.records.annotations import load_meta
from internvl_chat.families import family_of_style, is_hub_id, read_config_file
from internvl_chat.files import read_json

_PACKAGE = Path(__file__).resolve().parents[1]
_NUMBERS: Mapping[str, tuple[Callable[[str], float], str]] = {
    "int": (int, "a whole number"),
    "float": (float, "a number"),
}
# The flags under their other names.
_SAME = {"model": "model_name_or_path", "meta": "meta_path"}
# How transformers' own file says that DeepSpeed's settings are in a text and not in a file.
_INLINE = ("{", "ey")


def known_flags() -> dict[str, str]:
    """Every flag of the training script, with the type that its dataclass states."""
    transformers = find_spec("transformers")
    if transformers is None or transformers.origin is None:
        raise UserError(f"transformers is not installed for {sys.executable}: activate the environment that has it")
    sources = [
        (Path(transformers.origin).parent / "training_args.py", ("TrainingArguments",)),
        (_PACKAGE / "train" / "arguments.py", ("ModelArguments", "DataArguments", "FinetuneArguments")),
        (_PACKAGE / "data" / "prompts" / "prompt_config.py", ("PromptSettings",)),
        *((_PACKAGE / "data" / "controls" / f"{name}.py", ()) for name in CONTROLS),
    ]
    flags = {name: kind for path, classes in sources for name, kind in _fields(path, classes)}
    return {**flags, **dict.fromkeys(_SAME, "str")}


def _fields(path: Path, classes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names and annotations of the fields of these classes of a file; of all, where none is named."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and (not classes or node.name in classes):
            fields = (item for item in node.body if isinstance(item, ast.AnnAssign))
            for item in fields:
                kind = ast.unparse(item.annotation)
                if isinstance(item.target, ast.Name) and not kind.startswith("ClassVar"):
                    yield item.target.id, kind


def last_values(words: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    """The value that counts of each flag, under the name of its field.

    Raises:
        UserError: a flag is not known, or a number is none.
    """
    values: dict[str, str] = {}
    for number, word in enumerate(words):
        if not word.startswith("--"):
            continue
        flag, equals, value = word.removeprefix("--").partition("=")
        name = flag.replace("-", "_")
        # A switch that is on has a flag of its own to put it off.
        if name.startswith("no_") and known.get(name.removeprefix("no_")) == "bool":
            continue
        if name not in known:
            flags = [f"--{one}" for one in known]
            raise UserError(f"unknown flag --{flag}: {meant(f'--{name}', flags, '--help lists the flags')}")
        value = value if equals else "".join(words[number + 1 : number + 2])
        number_of, expected = _NUMBERS.get(known[name].removesuffix(" | None"), (None, ""))
        if number_of is not None:
            try:
                number_of(value)
            except ValueError as error:
                raise UserError(f"--{name} is {value!r}: expected {expected}") from error
        values[_SAME.get(name, name)] = value
    return values


def check_start(words: Sequence[str]) -> None:
    """Hold the flags of a run against what is there.

    Raises:
        UserError: a flag, or a file that one names, cannot be used.
    """
    values = last_values(words, known_flags())
    _check_model(values.get("model_name_or_path", ""))
    if "conv_style" in values:
        family_of_style(values["conv_style"])
    _check_deepspeed(values.get("deepspeed", ""))
    output_dir = Path(values.get("output_dir", "."))
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"--output_dir {output_dir}: is a file and cannot be written to: give another folder")
    load_meta(Path(values.get("meta_path", "")))


def _check_model(model: str) -> None:
    folder = Path(model).expanduser()
    if not folder.exists() and not is_hub_id(model):
        raise UserError(f"{model}: is neither a checkpoint folder nor a model of the hub (OWNER/NAME)")
    if folder.is_dir():
        read_config_file(folder)


def _check_deepspeed(settings: str) -> None:
    if settings and not settings.startswith(_INLINE):
        content: Any = read_json(Path(settings))
        if not isinstance(content, dict):
            raise UserError(f"--deepspeed {settings}: expected a JSON object")


def main() -> None:
    try:
        check_start(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
