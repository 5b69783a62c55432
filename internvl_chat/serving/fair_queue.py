"""A queue that serves its clients in turn, however many requests each of them has waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Generic, TypeVar

_T = TypeVar("_T")


class FairQueue(Generic[_T]):
    """First in, first out within a client; one request of each client after another."""

    def __init__(self) -> None:
        # In the order in which the clients' turns come.
        self._waiting: dict[str, deque[_T]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def push(self, client: str, item: _T) -> None:
        self._waiting.setdefault(client, deque()).append(item)

    def pop(self) -> _T:
        """The next item; the turn passes to the next client.

        Raises:
            IndexError: nothing waits.
        """
        if not self._waiting:
            raise IndexError("nothing waits")
        client = next(iter(self._waiting))
        items = self._waiting.pop(client)
        item = items.popleft()
        if items:
            self._waiting[client] = items
        return item

    def take_all(self, is_wanted: Callable[[_T], bool], most: int) -> list[_T]:
        """Take out the items of this kind, at most so many, whoever's they are."""
        found = (item for items in self._waiting.values() for item in items if is_wanted(item))
        taken = list(islice(found, most))
        kept = {client: deque(i for i in items if i not in taken) for client, items in self._waiting.items()}
        self._waiting = {client: items for client, items in kept.items() if items}
        return taken
