"""Region tokens: what is inside the box, in a key picture and a few others of the track, as tokens of the question.

Shape letters: F pictures shown (frames or images), T tiles, O objects that get tokens.
Source: Artemis, NeurIPS 2024, section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch

from internvl_chat.boxes import BoxArray, is_absent
from internvl_chat.constants import REGION_PLACEHOLDER
from internvl_chat.contracts import Turn
from internvl_chat.data.controls.base import Control, Scene
from internvl_chat.data.media.tiling import View, boxes_on_tiles
from internvl_chat.data.prompts.object_questions import TRACK_NOTES
from internvl_chat.data.records.track_frames import FrameChoice, key_frame, track_frames
from internvl_chat.settings import check_settings, setting

# What a tile is for an object's track; a tile can be both.
_TRACK, _KEY = 1, 2


@dataclass(frozen=True)
class RegionTokens(Control):
    """A slot for the key picture's region, and up to `region_tokens` for others of the track, in the question."""

    region_tokens: int = setting(0, "Tokens of an object's regions along its track, beside the key frame's; 0: none.")
    region_choice: FrameChoice = setting(
        "average", "Frames of the track: in equal steps, the first ones, or one of each cluster of like regions."
    )
    region_objects: int = setting(1, "Objects that get region tokens, the one that is asked about first.")

    region_frame: Literal["tile", "picture"] = setting(
        "tile", "What regions are shares of: the tile that is seen, or the picture, as Artemis' own code has it."
    )

    switched_on: ClassVar[str] = "--region_tokens 4"
    switched_off: ClassVar[str] = "--region_tokens 0"

    def __post_init__(self) -> None:
        check_settings(self, {"region_tokens": 0, "region_objects": 1})

    @property
    def module(self) -> str | None:
        return self.name if self.region_tokens else None

    def words(self, question: Turn, scene: Scene) -> str:
        """The question with each object's slots behind it, or that it is not to be seen.

        In a question of Artemis' own, which says `<bbox>` for its object, that is the key's slot, and the others stand
        behind the note that it ends with.
        """
        if not self.region_tokens:
            return question.text
        note = next((note for note in TRACK_NOTES if question.text.endswith(note)), "")
        said = [question.text.removesuffix(note).rstrip()]
        for number, (name, boxes) in enumerate(scene.tracks[: self.region_objects]):
            slots = REGION_PLACEHOLDER * (self._num_slots(~is_absent(boxes)) - 1)
            mentions = number == 0 and REGION_PLACEHOLDER in question.text
            if not slots:
                said[0] = said[0].replace(REGION_PLACEHOLDER, name) if mentions else said[0]
                said.append(f"The {name} is not to be seen.")
            elif mentions:
                said.append(f"{note or TRACK_NOTES[0]} {slots}.")
            else:
                said.append(f"The {name} is {REGION_PLACEHOLDER}, along its track {slots}.")
        return " ".join(said)

    def tensors(self, scene: Scene, tiles: Sequence[View]) -> dict[str, torch.Tensor]:
        """What `Regions.of` reads; nothing where the control is not used.

        `region_boxes` [T, O, 4] in thousandths of the tile, `region_roles` [T, O], and `region_slots` [T, O], which is
        -1 but for the sample's first tile. Of a picture that several tiles show the largest one is taken.
        """
        if not self.region_tokens or not tiles:
            return {}
        shape = (len(tiles), self.region_objects)
        boxes, roles = np.zeros((*shape, 4), dtype=np.int64), np.zeros(shape, dtype=np.int64)
        slots = np.full(shape, -1, dtype=np.int64)
        slots[0] = 0
        pictures, parts = [view.picture for view in tiles], [view.part for view in tiles]
        for number, (_, track) in enumerate(scene.tracks[: self.region_objects]):
            is_present = ~is_absent(track)
            key = key_frame(is_present)
            if key is None:
                continue
            boxes[:, number] = boxes_on_tiles(track[pictures], parts)
            tile_of = _tiles_of_pictures(tiles, boxes[:, number], len(track))
            if self.region_frame == "picture":
                boxes[:, number] = track[pictures]
            roles[tile_of[track_frames(is_present, self.region_tokens, self.region_choice)], number] |= _TRACK
            roles[tile_of[key], number] |= _KEY
            slots[0, number] = self._num_slots(is_present)
        arrays = {"region_boxes": boxes, "region_roles": roles, "region_slots": slots}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _num_slots(self, is_present: npt.NDArray[np.bool_]) -> int:
        """The key's slot and one for each of the track's, as far as there are pictures [F] that show the object."""
        seen = int(is_present.sum())
        return 1 + min(self.region_tokens, seen) if seen else 0


def _tiles_of_pictures(tiles: Sequence[View], boxes_T4: BoxArray, num_pictures: int) -> npt.NDArray[np.intp]:
    """For each picture [F] the tile that shows most of it, and of equally large ones most of the box."""
    chosen = np.zeros(num_pictures, dtype=np.intp)
    largest = [(-1.0, -1)] * num_pictures
    for number, ((picture, (x1, y1, x2, y2), _), box) in enumerate(zip(tiles, boxes_T4.tolist(), strict=True)):
        size = (round((x2 - x1) * (y2 - y1), 9), (box[2] - box[0]) * (box[3] - box[1]))
        if size > largest[picture]:
            chosen[picture], largest[picture] = number, size
    return chosen
