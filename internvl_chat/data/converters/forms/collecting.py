"""Converting item after item, so that one that cannot be said in this project's form does not hide the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from internvl_chat.contracts import UserError
from internvl_chat.data.checking.conversations import shortened
from internvl_chat.files import RawRecord, parse_json, read_text, split_records

_Item = TypeVar("_Item")


def converted(
    items: Iterable[_Item], convert: Callable[[_Item], Iterable[dict[str, Any]]], faults: list[UserError] | None
) -> Iterator[dict[str, Any]]:
    """The records of all items.

    Args:
        convert: makes the records of one item.
        faults: gets what is wrong with items, which are left out; None lets the first such fault rise.
    """
    for item in items:
        try:
            records = list(convert(item))
        except UserError as error:
            if faults is None:
                raise
            faults.append(error)
        else:
            yield from records


def converted_objects(
    source: Path, convert: Callable[[dict[str, Any], str, int], dict[str, Any]], faults: list[UserError] | None
) -> Iterator[dict[str, Any]]:
    """What becomes of the objects of a JSON list or a JSONL file.

    Args:
        convert: makes one of an object, its `file:line`, and its number from 0.
        faults: gets what is wrong with objects, which are left out; None lets the first such fault rise.
    Raises:
        UserError: the file cannot be read.
    """

    def one(numbered: tuple[int, RawRecord]) -> list[dict[str, Any]]:
        number, raw = numbered
        where = f"{source}:{raw.line}"
        record = parse_json(raw.text, where)
        if not isinstance(record, dict):
            raise UserError(f"{where}: is {shortened(record)}: expected an object")
        return [convert(record, where, number)]

    yield from converted(enumerate(split_records(read_text(source), source)), one, faults)
