"""What a task is: the questions of a test set, and how the answers to them are scored.

A task is a module or a folder here with `read(source) -> Benchmark`; its name is the file's, its first sentence what
`evaluate --help` says of it. Asking is no task's business: the ledger, the ranks and the batches are `predict`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from internvl_chat.choices import TASKS
from internvl_chat.contracts import Sample, UserError
from internvl_chat.files import parse_json, read_json, read_text, split_records

# By the id of a question; the answer first, then other candidates. A question that was not answered is not there.
Answers = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Scores:
    """What answers are worth.

    Args:
        values: each measure by its name; None where there was nothing to measure.
        text: the same for people, in lines.
        details: what else belongs into a file of results.
    """

    values: Mapping[str, float | int | None]
    text: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """Questions, and how answers to them are scored.

    Args:
        samples: each a conversation that ends with a question; their ids differ.
        score: from the answers, of which some may lack, to what they are worth.
        keep_tags: answers are scored with the tags of boxes in them.
    """

    samples: Sequence[Sample]
    score: Callable[[Answers], Scores]
    keep_tags: bool = False


class Task(Protocol):
    """A module of this folder."""

    def read(self, source: Path) -> Benchmark:
        """The questions of a test set, a folder or a file.

        Raises:
            UserError: it is no such test set.
        """


def task_named(name: str) -> Task:
    """A task by its name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in TASKS:
        raise UserError(f"{name}: is no task, expected one of {', '.join(TASKS)}")
    return cast("Task", import_module(f"internvl_chat.tasks.{name}"))


def read_answers(path: Path, ids: Sequence[str]) -> dict[str, list[str]]:
    """Answers to the questions of these ids: JSONL `{"id", "answer"}` with or without "candidates", or {id: answer}.

    Raises:
        UserError: it is neither, an id comes twice, or no id is one of the questions'.
    """
    found: dict[str, list[str]] = {}
    if path.suffix == ".json" and isinstance(read_json(path), dict):
        content = read_json(path)
        given = [(str(path), {"id": i, "answer": text}) for i, text in content.get("captions", content).items()]
    else:
        raws = ((f"{path}:{raw.line}", raw) for raw in split_records(read_text(path), path))
        given = [(source, parse_json(raw.text, source)) for source, raw in raws]
    for source, line in given:
        if not isinstance(line, dict) or not isinstance(line.get("answer"), str) or "id" not in line:
            raise UserError(f"{source}: {line!r:.80}: expected {{'id': ..., 'answer': a text}}")
        answer_id = str(line["id"])
        if answer_id in found:
            raise UserError(f"{source}: id {answer_id!r} comes twice, expected one answer a question")
        found[answer_id] = [str(text) for text in line.get("candidates", [line["answer"]])]
    asked = {i: found[i] for i in ids if i in found}
    if not asked:
        example = ids[0] if ids else "none"
        raise UserError(f"{path}: answers none of the {len(ids)} questions, such as {example!r}: is it of this task?")
    return asked
