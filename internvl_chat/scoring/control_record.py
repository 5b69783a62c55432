"""What was measured about how captions follow the box, and the file that holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from internvl_chat.contracts import UserError
from internvl_chat.files import read_json

Captions = Mapping[str, str]


@dataclass(frozen=True)
class Probe:
    """One way of asking about every clip; `swap` at 1 is the other object's track, level 0 the own one."""

    name: str
    level: float

    def ask_id(self, video_id: str) -> str:
        return f"{video_id} {self.name} {self.level:g}" if self.level else video_id


OWN = Probe("own", 0.0)


@dataclass(frozen=True)
class Point:
    """A probe's outcome over its clips.

    `own` and `other` are the shares of captions that are, word for word, a reference of the clip's own target and of
    its other one: rates of obedience where the references are all that can rightly be said. `score_own` and
    `score_other` score the captions against the two targets' references, `base_own` and `base_other` those that the
    same clips got with their own track. `changed` is the share of captions that differ from the latter. None where
    nothing is known to compare with.
    """

    probe: str
    level: float
    clips: int
    changed: float
    own: float | None = None
    other: float | None = None
    score_own: float | None = None
    score_other: float | None = None
    base_own: float | None = None
    base_other: float | None = None


@dataclass(frozen=True)
class ControlRecord:
    """What `control --out` wrote: the outcome of every probe, captions by probe and level, and how they were made."""

    metric: str
    points: Sequence[Point]
    captions: Mapping[str, Captions]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> ControlRecord:
        """Read the file that `control --out` writes.

        Raises:
            UserError: it is none.
        """
        held = read_json(path)
        try:
            record = cls(
                held["metric"], [Point(**point) for point in held["points"]], held["captions"], held.get("run", {})
            )
            numbers = [value for point in record.points for name, value in vars(point).items() if name != "probe"]
            is_ours = all(value is None or isinstance(value, (int, float)) for value in numbers)
            is_ours &= all(isinstance(text, str) for texts in record.captions.values() for text in texts.values())
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: expected a file that `control --out` wrote, got {error!r}") from None
        if not is_ours or not record.points:
            raise UserError(f"{path}: expected a file that `control --out` wrote, with numbers and captions")
        return record

    def runs(self) -> dict[str, dict[str, str]]:
        """The captions without any box, where they were asked for, and with the own one: runs to compare."""
        named = {"no box": Probe("null", 1.0), "own box": OWN}
        keys = {name: f"{probe.name} {probe.level:g}" for name, probe in named.items()}
        return {name: dict(self.captions[key]) for name, key in keys.items() if key in self.captions}
