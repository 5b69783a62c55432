"""Files of long texts with a question and an answer each, as LongAlpaca and LongQLoRA have them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_chat.contracts import UserError
from internvl_chat.files import parse_json, read_text, split_records


@dataclass(frozen=True)
class TextFields:
    """The names of a record's fields.

    Args:
        split: a regular expression; where given, text and question stand in one field, `context`, before and behind
            the last place that it matches.
    """

    context: str = "context"
    question: str = "question"
    answer: str = "answer"
    split: str | None = None


# LongAlpaca's instructions end with "Now the paper ends." (or material, book) and the question; LongQLoRA's inputs with
# the question on a line of its own.
PRESETS = {
    "longalpaca": TextFields("instruction", "", "output", r"Now the \w+ ends?\.?\s"),
    "longqlora": TextFields("input", "", "output", r"\n"),
}


@dataclass(frozen=True)
class LongText:
    """A record's texts; empty where the record has nothing there.

    Args:
        number: its place in the file, from 0.
        source: `file:line`, for messages.
    """

    number: int
    source: str
    context: str
    question: str
    answer: str


def read_long_texts(path: Path, fields: TextFields) -> Iterator[LongText]:
    """The records of a JSON list or a JSONL file.

    Raises:
        UserError: the file cannot be read, or a record lacks a field or holds something else than a text there.
    """
    try:
        split = None if fields.split is None else re.compile(fields.split)
    except re.error as error:
        raise UserError(f"--split {fields.split!r}: is no regular expression ({error})") from error
    for number, raw in enumerate(split_records(read_text(path), path)):
        source = f"{path}:{raw.line}"
        record = parse_json(raw.text, source)
        context = _text(record, fields.context, source)
        answer = _text(record, fields.answer, source)
        if split is None:
            question = _text(record, fields.question, source)
        else:
            context, question = _parted(context, split)
        yield LongText(number, source, context, question.strip(), answer.strip())


def _text(record: Any, key: str, source: str) -> str:
    if not isinstance(record, dict):
        raise UserError(f"{source}: is no object, expected one with {key!r}")
    if not isinstance(record.get(key), str):
        raise UserError(f"{source}: has no text {key!r} among {sorted(record)}: name its fields, or take a --preset")
    return str(record[key])


def _parted(text: str, split: re.Pattern[str]) -> tuple[str, str]:
    """Text and question; no text where nothing parts them."""
    text = text.strip()
    places = [match.span() for match in split.finditer(text)]
    if not places:
        return "", text
    start, end = places[-1]
    return text[:start], text[end:]
