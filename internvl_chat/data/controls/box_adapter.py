"""Box adapter: each tile's box, for the modules after layers of the tower that attend to what is inside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from internvl_chat.data.controls.base import Control, Scene
from internvl_chat.data.media.tiling import View, boxes_on_tiles
from internvl_chat.settings import setting
from internvl_chat.vision import Vision


@dataclass(frozen=True)
class BoxAdapter(Control):
    """Hands over the first object's box on every tile."""

    box_adapter: bool = setting(True, "Hand the boxes to the box adapters.")

    switched_on: ClassVar[str] = "--num_adapter_layers 5"
    switched_off: ClassVar[str] = "--num_adapter_layers 0"

    def tensors(self, scene: Scene, tiles: Sequence[View]) -> Vision:
        """`boxes` [T, 4] in thousandths of the tile, zeros where the object is absent or nothing is to be handed on."""
        if not scene.tracks or not self.box_adapter:
            return {"boxes": torch.zeros(len(tiles), 4, dtype=torch.int64)}
        boxes = scene.tracks[0][1][[view.picture for view in tiles]]
        return {"boxes": torch.from_numpy(boxes_on_tiles(boxes, [view.part for view in tiles]))}
