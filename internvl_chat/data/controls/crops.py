"""Crops: the object cut out of some of the pictures, as tiles of its own behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from internvl_chat.boxes import is_absent
from internvl_chat.data.controls.base import Control, ExtraView, Scene
from internvl_chat.data.media.sampling import sample_frames
from internvl_chat.data.media.tiling import View, part_around
from internvl_chat.settings import check_settings, setting


@dataclass(frozen=True)
class Crops(Control):
    """A line `Crop of Frame-3: <image>` and a tile for each of `crop_frames` pictures that show the object."""

    crop_frames: int = setting(0, "Extra tiles with the object cut out of so many frames.")
    crop_margin: float = setting(0.25, "Margin of a crop, in sides of the box.")

    switched_on: ClassVar[str] = "--crop_frames 4"
    switched_off: ClassVar[str] = "--crop_frames 0"

    def __post_init__(self) -> None:
        check_settings(self, {"crop_frames": 0, "crop_margin": 0})

    @property
    def most_views(self) -> int:
        return self.crop_frames

    def views(self, scene: Scene) -> Sequence[ExtraView]:
        """Of the first object, evenly chosen among the pictures that show it."""
        boxes = scene.tracks[0][1]
        present = np.flatnonzero(~is_absent(boxes))
        count = min(self.crop_frames, len(present))
        chosen = present[sample_frames(count, len(present), "middle")].tolist() if count else []
        return [
            ExtraView(
                f"Crop of {scene.picture_line(number + 1)}", View(number, part_around(boxes[number], self.crop_margin))
            )
            for number in chosen
        ]
