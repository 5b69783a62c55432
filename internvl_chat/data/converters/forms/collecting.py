"""Converting item after item, so that one that cannot be said in this project's form does not hide the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from internvl_chat.contracts import UserError

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
