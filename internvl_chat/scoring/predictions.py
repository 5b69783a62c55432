"""Predictions as files: the one form that every command writes, and the forms that every command reads.

Written is JSONL, a line an answer: `{"id": ..., "answer": ...}`, with `"candidates": [...]`, the answer first, where
there are several; `run.json` beside it says how the answers were made. Read are, too, the challenge's `{"captions":
{id: caption}}` with or without its frame, `{id: [caption, ...]}` where candidates are asked for, lines that call the
two `video` and `caption`, and a folder of `eval`, `evaluate` or `caption-videos`.
"""

from __future__ import annotations

import reprlib
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from internvl_chat.command_line import PROGRAM, program
from internvl_chat.contracts import UserError
from internvl_chat.files import parse_json, raise_faults, read_json, read_text, split_records, write_json, write_jsonl

ANSWERS_NAME, FACTS_NAME = "answers.jsonl", "run.json"
# What folders of `eval` and `evaluate`, and of `caption-videos`, call their answers.
_NAMES = (ANSWERS_NAME, "captions.jsonl")
# What a line may call its question, and its answer.
_IDS, _ANSWERS = ("id", "question_id", "video"), ("answer", "caption", "pred")
_EXPECTED = (
    "expected JSONL with {'id': ..., 'answer': ...} a line, or {'captions': {id: caption}}, or what stands inside"
)


def read_predictions(path: Path) -> dict[str, str]:
    """One caption an id, in the file's order; of several candidates the first.

    Args:
        path: a file in one of the forms above, or a folder of `eval_const.py` or `evaluate`.
    Raises:
        UserError: it is none, holds something else than texts, or an id comes twice.
    """
    return {i: texts[0] for i, texts in read_texts(path, of_lists=False).items()}


def read_candidates(path: Path) -> dict[str, list[str]]:
    """The candidates of each id, the caption first; as `read_predictions`, and {id: [caption, ...]}.

    Raises:
        UserError: as `read_predictions`, or no id has more than one.
    """
    found = read_texts(path)
    if not any(len(texts) > 1 for texts in found.values()):
        raise UserError(
            f"{path}: has one caption an id, such as {next(iter(found))!r}: expected several; eval_const.py and "
            "evaluate write them with --num_candidates above 1"
        )
    return found


def write_predictions(path: Path, candidates: Mapping[str, Sequence[str]]) -> int:
    """Write the form that every command reads; returns how many lines."""
    return write_jsonl(
        path,
        (
            {"id": i, "answer": texts[0], **({"candidates": list(texts)} if len(texts) > 1 else {})}
            for i, texts in candidates.items()
        ),
    )


def write_facts(predictions: Path, facts: Mapping[str, Any]) -> None:
    """Say beside a file of predictions, or in a folder, how they were made."""
    write_json(_facts_path(predictions), dict(facts))


def read_facts(predictions: Path) -> dict[str, Any]:
    """What is said of how these predictions were made; nothing of those that other programs wrote."""
    own = _facts_path(predictions)
    path = own if own.is_file() else predictions.with_name(FACTS_NAME)
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def run_facts(model: str, data: str, num_frames: object, decoding: Mapping[str, Any]) -> dict[str, Any]:
    """What a file of predictions cannot say of itself: who said it, to what, how it was sampled, and when.

    Args:
        num_frames: shown of a video, one number or one a member of an ensemble.
    """
    return {
        "model": model,
        "data": data,
        "num_frames": num_frames,
        "decoding": dict(decoding),
        "date": date.today().isoformat(),
        "command": f"{_started_as()} {shlex.join(sys.argv[1:])}".rstrip(),
    }


def _started_as() -> str:
    """How a shell starts this again: a script by its name, what `python -m` runs by the package's."""
    name = Path(sys.argv[0]).name
    return program() if name in ("__main__.py", PROGRAM) else f"python {name}"


def _facts_path(predictions: Path) -> Path:
    if predictions.is_dir() or predictions.name == ANSWERS_NAME:
        return (predictions if predictions.is_dir() else predictions.parent) / FACTS_NAME
    return predictions.with_suffix(f".{FACTS_NAME}")


def read_texts(path: Path, of_lists: bool = True) -> dict[str, list[str]]:
    """What is said to each id, the answer first; one text or several.

    Args:
        of_lists: take {id: [caption, ...]}, which is how references are written too.
    Raises:
        UserError: as `read_predictions`.
    """
    if path.is_dir():
        path = next((path / name for name in _NAMES if (path / name).is_file()), path / ANSWERS_NAME)
    content = read_json(path) if path.suffix == ".json" else None
    given = _of_object(content, path, of_lists) if isinstance(content, dict) else _of_lines(path)
    found: dict[str, list[str]] = {}
    for source, answer_id, texts in given:
        if answer_id in found:
            raise UserError(f"{source}: id {answer_id!r} comes twice, expected one answer a question")
        found[answer_id] = texts
    if not found:
        raise UserError(f"{path}: holds no predictions: {_EXPECTED}")
    return found


def _of_object(content: dict[str, Any], path: Path, of_lists: bool) -> Iterator[tuple[str, str, list[str]]]:
    captions = content.get("captions", content)
    if "points" in content:
        raise UserError(f"{path}: is what `control --out` wrote: give it as --control; {_EXPECTED}")
    if not isinstance(captions, dict):
        raise UserError(f"{path}: 'captions' is {reprlib.repr(captions)}: {_EXPECTED}")
    for answer_id, value in captions.items():
        texts = value if isinstance(value, list) and of_lists else [value]
        if not texts or not all(isinstance(text, str) for text in texts):
            raise UserError(f"{path}: {answer_id!r}: expected a caption, got {reprlib.repr(value)}{_advice(value)}")
        yield str(path), answer_id, texts


def _advice(value: Any) -> str:
    if isinstance(value, list):
        return "; lists are references or candidates: were the two files swapped, or is `consensus` to choose first?"
    return f"; {_EXPECTED}"


def _of_lines(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    faults: list[str] = []
    for raw in split_records(read_text(path), path):
        source = f"{path}:{raw.line}"
        try:
            yield from _of_line(parse_json(raw.text, source), source)
        except UserError as error:
            faults.append(str(error))
    raise_faults(faults)


def _of_line(line: Any, source: str) -> Iterator[tuple[str, str, list[str]]]:
    if not isinstance(line, dict):
        raise UserError(f"{source}: {reprlib.repr(line)}: {_EXPECTED}")
    if "conversations" in line:
        raise UserError(f"{source}: is a record, whose answers are references: give the file as --references")
    answer_id = next((line[key] for key in _IDS if isinstance(line.get(key), (str, int))), None)
    several = line.get("answers")
    first = next((line[key] for key in _ANSWERS if key in line), None)
    texts = line.get("candidates", several or [first])
    if answer_id is None or not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise UserError(f"{source}: {reprlib.repr(line)}: {_EXPECTED}")
    if several:
        # A record of several gpt turns has an answer to each.
        yield from ((source, f"{answer_id} ({number})", [text]) for number, text in enumerate(texts, start=1))
    else:
        yield source, str(answer_id), [str(text) for text in texts]
