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
from internvl_chat.scoring.predictions import read_texts
from internvl_chat.scoring.significance import Interval

# By the id of a question; the answer first, then other candidates. A question that was not answered is not there.
Answers = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class ScoreRow:
    """A line of a table of scores.

    Args:
        count: answers that it is about; those that were not given count as wrong, where a task says so.
        interval: where the value lies with 95 %; None where it is not known.
        unread: replies that name no answer.
        is_whole: it is about all of the test set, and not about a part.
    """

    name: str
    value: float
    count: int
    interval: Interval | None = None
    unread: int = 0
    is_whole: bool = True


@dataclass(frozen=True)
class Scores:
    """What answers are worth.

    Args:
        values: each measure by its name; None where there was nothing to measure.
        text: the same for people, in lines.
        details: what else belongs into a file of results.
        rows: the same for a table, with intervals; what speaks for all comes first.
    """

    values: Mapping[str, float | int | None]
    text: str
    details: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[ScoreRow] = ()


@dataclass(frozen=True)
class Published:
    """What others published on a test set: measures by the names that `Scores.values` has, and how they were made."""

    model: str
    values: Mapping[str, float]
    conditions: str


@dataclass(frozen=True)
class Benchmark:
    """Questions, and how answers to them are scored.

    Args:
        samples: each a conversation that ends with a question; their ids differ.
        score: from the answers, of which some may lack, to what they are worth.
        keep_tags: answers are scored with the tags of boxes in them.
        published: numbers of others on this test set.
    """

    samples: Sequence[Sample]
    score: Callable[[Answers], Scores]
    keep_tags: bool = False
    published: Sequence[Published] = ()


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
    """Answers to the questions of these ids, in any form that `scoring.predictions` reads.

    Raises:
        UserError: it is no such file, or no id is one of the questions'.
    """
    found = read_texts(path)
    # `answer` has the only answer of a record under the record's id.
    named = {i: i if i in found else i.removesuffix(" (1)") for i in ids}
    asked = {i: found[name] for i, name in named.items() if name in found}
    if not asked:
        example = ids[0] if ids else "none"
        raise UserError(
            f"{path}: answers none of the {len(ids)} questions, such as {example!r}, but {next(iter(found))!r}: is it "
            "of this task?"
        )
    return asked
