"""Drawn box: the object's outline in a colour, painted into the pictures while they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw

from internvl_chat.boxes import BoxArray, is_absent
from internvl_chat.constants import BOX_SCALE
from internvl_chat.contracts import UserError
from internvl_chat.data.controls.base import Control, Switch, switched
from internvl_chat.data.media.sources import Pictures
from internvl_chat.settings import check_settings, setting


@dataclass(frozen=True)
class DrawnBox(Control):
    """The boxes of all objects, one line width wide, inside the box's edge."""

    red_box: Switch = setting("question", "Draw the boxes into the frames: where the question asks, always, never.")
    red_box_colour: str = setting("red", "Colour of the drawn box: a name, or #rrggbb.")
    red_box_width_px: int = setting(3, "Line width of the drawn box, pixels of the frame.")

    switched_on: ClassVar[str] = "--red_box on"
    switched_off: ClassVar[str] = "--red_box off"
    paints: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_settings(self, {"red_box_width_px": 1})
        try:
            ImageColor.getcolor(self.red_box_colour, "RGB")
        except ValueError as error:
            raise UserError(f"--red_box_colour {self.red_box_colour!r}: expected a name, or #rrggbb") from error

    def is_on(self, asked: bool, is_first: bool) -> bool:
        return switched(self.red_box, asked, is_first)

    def paint(self, pictures: Pictures, boxes: Sequence[BoxArray]) -> Pictures:
        for of_object in boxes:
            pictures = draw_boxes(pictures, of_object, self.red_box_colour, self.red_box_width_px)
        return pictures


def draw_boxes(
    pictures: Pictures, boxes: BoxArray, colour: str = "red", width_px: int = 3
) -> list[npt.NDArray[np.uint8]]:
    """Copies of the pictures F x [H, W, 3], each present box [F, 4] (thousandths) outlined.

    `colour` is a name or `#rrggbb`.
    """
    drawn = []
    outline = ImageColor.getcolor(colour, "RGB")
    for picture, box, absent in zip(pictures, boxes, is_absent(boxes), strict=True):
        image = Image.fromarray(picture)
        if not absent:
            corners = box / BOX_SCALE * np.array([image.width, image.height, image.width, image.height])
            ImageDraw.Draw(image).rectangle([float(v) for v in corners], outline=outline, width=width_px)
        drawn.append(np.array(image))
    return drawn
