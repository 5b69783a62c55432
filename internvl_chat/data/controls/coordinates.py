"""Coordinates: the prompt lists the object's box in every frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from internvl_chat.boxes import is_absent
from internvl_chat.constants import BOX_END, BOX_SCALE, BOX_START, REF_END, REF_START
from internvl_chat.contracts import Turn, UserError
from internvl_chat.data.controls.base import Control, NamedBoxes, Scene, Switch, switched
from internvl_chat.data.prompts.wordings import list_frame
from internvl_chat.settings import check_settings, setting

CoordinateUnit = Literal["thousandths", "percent", "unit"]

# What the side of a picture measures in the unit, and the decimals that a thousandth of it needs.
_UNITS: dict[CoordinateUnit, tuple[int, int]] = {"thousandths": (1000, 0), "percent": (100, 1), "unit": (1, 3)}


@dataclass(frozen=True)
class Coordinates(Control):
    """The list of boxes behind the question, in the words that its published form has around it."""

    coordinates: Switch = setting("question", "List the boxes in the prompt: where the question asks, always, never.")
    coordinate_unit: CoordinateUnit = setting("thousandths", "What the listed numbers count; 'unit' is 0 to 1.")
    coordinate_decimals: int | None = setting(
        None, "Decimals of the listed numbers; without it what a thousandth needs."
    )
    coordinate_stride: int = setting(1, "List the boxes of every n-th frame.")
    absent_boxes: str = setting("absent", "What the prompt says of an absent box; 'zeros' is [[0, 0, 0, 0]].")

    switched_on: ClassVar[str] = "--coordinates on"
    switched_off: ClassVar[str] = "--coordinates off"

    def __post_init__(self) -> None:
        check_settings(self, {"coordinate_decimals": 0, "coordinate_stride": 1})
        if not self.absent_boxes.strip() or any(mark in self.absent_boxes for mark in ("\n", BOX_START, REF_START)):
            raise UserError(f"--absent_boxes {self.absent_boxes!r}: expected a few words on one line, or 'zeros'")

    def is_on(self, asked: bool, is_first: bool) -> bool:
        return switched(self.coordinates, asked, is_first)

    def words(self, question: Turn, scene: Scene) -> str:
        lead_in, closing = list_frame(question)
        return question.text + lead_in + self.listed(scene.tracks) + closing

    def listed(self, tracks: Sequence[NamedBoxes]) -> str:
        """One numbered line a frame: `1. <ref>airplane</ref><box>[[385, 633, 533, 725]]</box>`; numbers start at 1.

        Several objects share the line, separated by commas; an absent one reads `<ref>airplane</ref>absent`.
        """
        lines = []
        for frame in range(0, len(tracks[0][1]), self.coordinate_stride):
            places = [
                f"{REF_START}{name}{REF_END}{self._place(boxes[frame].tolist(), not is_absent(boxes[frame]))}"
                for name, boxes in tracks
            ]
            lines.append(f"{frame + 1}. {', '.join(places)}\n")
        return "".join(lines)

    def _place(self, box: Sequence[int], is_present: bool) -> str:
        """One box [4] in thousandths as text."""
        if not is_present and self.absent_boxes != "zeros":
            return self.absent_boxes
        scale, decimals = _UNITS[self.coordinate_unit]
        if self.coordinate_decimals is not None:
            decimals = self.coordinate_decimals
        numbers = ", ".join(f"{value * scale / BOX_SCALE:.{decimals}f}" for value in box)
        return f"{BOX_START}[[{numbers}]]{BOX_END}"
