"""Boxes that stand a row each, gathered by the object that they are of."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from internvl_chat.contracts import UserError
from internvl_chat.data.converters.forms.described import Box, Faults

Key = TypeVar("Key", bound=Hashable)


@dataclass
class RowsOfObject:
    """What the rows of one object say.

    Args:
        called: the object in messages, `track 3`.
        first_at: where its first row stands.
        boxes: by frame, counted from 0.
        texts: what is said of it, as far as the rows say it.
    """

    called: str
    first_at: str
    label: str = ""
    labelled_at: str = ""
    boxes: dict[int, Box] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    is_sound: bool = True

    def put(self, frame: int, box: Box, label: str, where: str) -> None:
        """Take a row's box, and its label, which may be empty.

        Raises:
            UserError: the object has a box on this frame, or another label on an earlier row.
        """
        if frame in self.boxes:
            raise UserError(f"{where}: {self.called} has two boxes on this frame")
        if label and self.label and label != self.label:
            raise UserError(
                f"{where}: {self.called} is {label!r:.60} here and {self.label!r:.60} at {self.labelled_at}: expected "
                "one label"
            )
        if label and not self.label:
            self.label, self.labelled_at = label, where
        self.boxes[frame] = box


class ObjectRows(Generic[Key]):
    """A table's rows by object.

    An object with a faulty row is left out whole: its track would have a hole that nobody sees. A row that does not say
    which object it is of is left out alone.

    Args:
        left_out: gets what is wrong with rows.
    """

    def __init__(self, left_out: list[UserError]) -> None:
        self._faults = Faults(left_out)
        self._objects: dict[Key, RowsOfObject] = {}

    @contextmanager
    def row(self) -> Iterator[None]:
        """Keep the fault of a row that says of no object."""
        with self._faults.gathered():
            yield

    @contextmanager
    def of(self, key: Key, called: str, where: str) -> Iterator[RowsOfObject]:
        """The object of a row; a `UserError` of the block is kept, and leaves the object out."""
        found = self._objects.setdefault(key, RowsOfObject(called, where))
        with self._faults.gathered_of(found):
            yield found

    def sound(self) -> dict[Key, RowsOfObject]:
        """The objects that have no faulty row, in the order of their first rows."""
        return {key: found for key, found in self._objects.items() if found.is_sound}

    def __bool__(self) -> bool:
        return bool(self._objects)
