"""Pictures with their boxes: what is true, and what was predicted over it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from internvl_chat.constants import BOX_SCALE
from internvl_chat.data.media.drawing import BOX_COLOUR, GAP_PX, GROUND_COLOUR, TEXT_COLOUR
from internvl_chat.data.media.fonts import label_font
from internvl_chat.grounding import LabelledBox

TRUE_COLOUR = (0, 110, 190)
LABEL_PX, CAPTION_PX = 11, 13
# A letter's, on average.
CAPTION_WIDTH_PX = 8

Rectangle = tuple[float, float, float, float]


@dataclass(frozen=True)
class BoxedPicture:
    """A picture with true boxes (blue), predicted boxes (orange, drawn over them), and text under it."""

    image: Image.Image
    truth: Sequence[LabelledBox]
    predicted: Sequence[LabelledBox]
    caption: str


def boxed_sheet(pictures: Sequence[BoxedPicture], picture_width_px: int = 320, columns: int = 3) -> Image.Image:
    """The pictures side by side in rows; every row is as high as its highest picture."""
    columns = min(columns, len(pictures))
    tiles = [_tile(picture, picture_width_px) for picture in pictures]
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) + GAP_PX for row in rows]
    sheet = Image.new("RGB", (columns * (picture_width_px + GAP_PX) + GAP_PX, sum(heights) + GAP_PX), GROUND_COLOUR)
    y = GAP_PX
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            sheet.paste(tile, (GAP_PX + column * (picture_width_px + GAP_PX), y))
        y += height
    return sheet


def _tile(picture: BoxedPicture, width_px: int) -> Image.Image:
    height_px = round(width_px * picture.image.height / picture.image.width)
    lines = textwrap.wrap(picture.caption, width_px // CAPTION_WIDTH_PX)
    tile = Image.new("RGB", (width_px, height_px + len(lines) * (CAPTION_PX + 4) + GAP_PX), GROUND_COLOUR)
    tile.paste(picture.image.convert("RGB").resize((width_px, height_px), Image.Resampling.LANCZOS), (0, 0))
    draw = ImageDraw.Draw(tile)
    taken: list[Rectangle] = []
    # Truth outside its ink, so that both stay visible, and a prediction on the very edge, inside the truth's.
    for boxes, colour, outside_px in ((picture.truth, TRUE_COLOUR, 3), (picture.predicted, BOX_COLOUR, 0)):
        for item in boxes:
            x1, y1, x2, y2 = (v / BOX_SCALE * side for v, side in zip(item.box, (width_px, height_px) * 2, strict=True))
            edges = (x1 - outside_px, y1 - outside_px, x2 + outside_px, y2 + outside_px)
            draw.rectangle(edges, outline=colour, width=2)
            draw.text(_label_place(draw, item.label, edges, taken), item.label, font=label_font(LABEL_PX), fill=colour)
    draw.multiline_text((GAP_PX, height_px + 2), "\n".join(lines), font=label_font(CAPTION_PX), fill=TEXT_COLOUR)
    return tile


def _label_place(draw: ImageDraw.ImageDraw, label: str, box: Rectangle, taken: list[Rectangle]) -> tuple[float, float]:
    """Where a label goes: above its box, else below, right or left of it, where no other label is; above if all are."""
    width = draw.textlength(label, font=label_font(LABEL_PX))
    x1, y1, x2, y2 = box
    places = [(x1, y1 - LABEL_PX - 3), (x1, y2 + 1), (x2 + 3, y1), (x1 - width - 3, y1)]

    def is_free(place: tuple[float, float]) -> bool:
        x, y = place
        apart = (x + width < a or c < x or y + LABEL_PX < b or d < y for a, b, c, d in taken)
        return x >= 0 and y >= 0 and all(apart)

    x, y = next(filter(is_free, places), places[0])
    taken.append((x, y, x + width, y + LABEL_PX))
    return x, y
