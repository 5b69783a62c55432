"""What is done to a picture before it is cut into tiles: boxes drawn in, and compression as augmentation.

Shape letters: F pictures, H and W their pixels.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw

from internvl_chat.boxes import BoxArray, is_absent
from internvl_chat.constants import BOX_SCALE
from internvl_chat.data.media.sources import Pictures

# The qualities that InternVL's training draws from, both inclusive.
JPEG_QUALITIES = (75, 100)


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


def recompressed(picture_HW3: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """The picture as JPEG of this quality keeps it."""
    buffer = BytesIO()
    Image.fromarray(picture_HW3).save(buffer, format="JPEG", quality=quality)
    with Image.open(buffer) as image:
        return np.array(image.convert("RGB"))
