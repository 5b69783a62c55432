"""Files of answers that people already have, one JSON object a line; all faults are told at once, by line."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_chat.contracts import UserError
from internvl_chat.files import parse_json, raise_faults, read_text, split_records
from internvl_chat.scoring.multiple_choice import ChoiceItem, chosen_letter, options_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnswerLine:
    """One object of an answer file: where it stands, what it is called, and its texts by field; missing ones are "".

    `truths` are the texts that are right, one or more, and `asked` those of `texts` that are the question.
    """

    source: str
    id: str
    texts: Mapping[str, str]
    truths: tuple[str, ...]
    asked: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnswerFields:
    """Which keys an answer file has; of several spellings the first that an object has counts.

    Args:
        truth: holds what is right, a text or a list of them.
        asked: must be there, each under one of its spellings; the first is how it is called further on.
        answers: what a model said; may be missing, and then counts as an answer that was not given.
        extra: taken where it is there.
    """

    truth: tuple[str, ...]
    asked: tuple[tuple[str, ...], ...] = ()
    answers: tuple[str, ...] = ("pred",)
    extra: tuple[str, ...] = ()


_IDS = ("id", "question_id", "video_name", "video")


def read_answers(path: Path, fields: AnswerFields) -> list[AnswerLine]:
    """The objects of a JSONL file, or of a list in a .json; one that repeats another counts, and is warned of.

    Raises:
        UserError: some are no such objects, all are named; or none of them has an answer at all.
    """
    lines, faults, keys = [], [], set[str]()
    for raw in split_records(read_text(path), path):
        source = f"{path}:{raw.line}"
        try:
            content = parse_json(raw.text, source)
            lines.append(_read_line(content, fields, source))
            keys.update(content)
        except UserError as error:
            faults.append(str(error))
    raise_faults(faults)
    if not lines:
        raise UserError(f"{path}: holds no answers")
    missing = [name for name in fields.answers if name not in keys]
    if missing:
        raise UserError(
            f"{path}: no object has {' or '.join(map(repr, missing))}, where a model's answer is expected; they have "
            f"{', '.join(sorted(keys))}: rename the one that holds it"
        )
    _warn_of_repeats(lines, path)
    return lines


def _warn_of_repeats(lines: Sequence[AnswerLine], path: Path) -> None:
    """Tell of answers to what was answered before, as in files that were joined twice."""
    first: dict[tuple[object, ...], AnswerLine] = {}
    repeats = []
    for line in lines:
        before = first.setdefault((line.id, line.truths, *line.asked), line)
        if before is not line:
            repeats.append((before, line))
    if repeats:
        before, line = repeats[0]
        logger.warning(
            "%s: %d of %d answers are to a question that an earlier line has, such as %s and %s, both %r; each counts",
            path,
            len(repeats),
            len(lines),
            before.source,
            line.source,
            line.id,
        )


def _read_line(content: Any, fields: AnswerFields, source: str) -> AnswerLine:
    if not isinstance(content, dict):
        raise UserError(
            f"{source}: expected an object with {', '.join(map(' or '.join, (fields.truth, *fields.asked)))}"
        )
    texts = {names[0]: _text(content, names, source) for names in fields.asked}
    texts |= {name: _text(content, (name,), source, "") for name in (*fields.answers, *fields.extra)}
    if not any(name in content for name in fields.truth):
        raise UserError(f"{source}: has no {' or '.join(map(repr, fields.truth))}")
    asked = tuple(texts[names[0]] for names in fields.asked)
    given = next(content[name] for name in fields.truth if name in content)
    listed = given if isinstance(given, list) else [given]
    truths = tuple(truth for truth in listed if isinstance(truth, str) and truth.strip())
    if not truths or len(truths) < len(listed):
        raise UserError(f"{source}: {fields.truth[0]!r} is {given!r:.80}: expected a text, or a list of texts")
    name = next((content[key] for key in _IDS if isinstance(content.get(key), (str, int))), source.rpartition(":")[2])
    return AnswerLine(source, str(name), texts, truths, asked)


def _text(content: Mapping[str, Any], names: Sequence[str], source: str, otherwise: str | None = None) -> str:
    for name in names:
        value = content.get(name)
        if isinstance(value, str):
            return value
        if value is not None:
            raise UserError(f"{source}: {name!r} is {value!r:.80}: expected a text")
    if otherwise is None:
        raise UserError(f"{source}: has no {' or '.join(map(repr, names))}")
    return otherwise


CHOICE_FIELDS = AnswerFields(("GT", "answer"), (("prompt", "question"),), extra=("category",))
CAPTION_FIELDS = AnswerFields(("groundtruth", "gt", "answer"))


def read_choices(path: Path) -> list[ChoiceItem]:
    """Multiple choice: `prompt` with the options, `GT`, `pred`, and where there are `question_id` and `category`.

    Raises:
        UserError: some lines are none, or their GT names no option; all are named.
    """
    items, faults = [], []
    for line in read_answers(path, CHOICE_FIELDS):
        options = options_of(line.texts["prompt"])
        truth = chosen_letter(line.truths[0], options)
        if truth is None or len(line.truths) > 1:
            expected = ", ".join(options) or "a letter from A to E"
            faults.append(f"{line.source}: 'GT' is {line.truths[0]!r:.80}: expected one of {expected}")
        else:
            items.append(ChoiceItem(options, truth, line.texts["pred"], line.texts["category"]))
    raise_faults(faults)
    return items
