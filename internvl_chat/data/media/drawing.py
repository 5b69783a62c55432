"""Pictures of what the model saw: frames with their box, and text under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from internvl_chat.boxes import BoxArray, is_absent
from internvl_chat.constants import BOX_SCALE
from internvl_chat.data.media.fonts import label_font
from internvl_chat.data.media.sources import Pictures

BOX_COLOUR = (255, 170, 0)
GROUND_COLOUR, TEXT_COLOUR, DIM_COLOUR = (250, 250, 248), (30, 30, 30), (120, 120, 120)
GAP_PX, FONT_PX = 4, 16


@dataclass(frozen=True)
class Strip:
    """One row: F frames [H, W, 3] uint8 with boxes [F, 4] in thousandths, and the lines of text under them.

    Without boxes, nothing is drawn into the frames.
    """

    frames: Pictures
    boxes: BoxArray | None
    lines: Sequence[str]


def _frame_with_box(frame: npt.NDArray[np.uint8], box: npt.NDArray | None, size_px: tuple[int, int]) -> Image.Image:
    image = Image.fromarray(frame).resize(size_px, Image.Resampling.BICUBIC)
    if box is None:
        return image
    draw = ImageDraw.Draw(image)
    if is_absent(box):
        draw.text((6, 4), "absent", font=label_font(FONT_PX), fill=BOX_COLOUR)
    else:
        corners = box / BOX_SCALE * np.array([image.width, image.height, image.width, image.height])
        draw.rectangle([float(v) for v in corners], outline=BOX_COLOUR, width=3)
    return image


def _wrapped(text: str, width_px: int, font: ImageFont.FreeTypeFont) -> list[str]:
    lines = [""]
    for word in text.split():
        candidate = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(candidate) > width_px:
            lines.append(word)
        else:
            lines[-1] = candidate
    return lines


def contact_sheet(strips: Sequence[Strip], frame_width_px: int = 160, frames_per_row: int = 6) -> Image.Image:
    """Strips one under the other; a strip of more than `frames_per_row` frames takes several rows."""
    font = label_font(FONT_PX)
    columns = min(frames_per_row, max(len(strip.frames) for strip in strips))
    width_px = columns * (frame_width_px + GAP_PX) + GAP_PX
    parts: list[Image.Image] = []
    for strip in strips:
        heights_px = [round(frame_width_px * frame.shape[0] / frame.shape[1]) for frame in strip.frames]
        height_px = max(heights_px)
        boxes = [None] * len(strip.frames) if strip.boxes is None else strip.boxes
        tiles = [
            _frame_with_box(frame, box, (frame_width_px, own_height_px))
            for frame, box, own_height_px in zip(strip.frames, boxes, heights_px, strict=True)
        ]
        # A wrapped line goes on in the colour in which it begins.
        lines = [
            (wrapped, DIM_COLOUR if text.startswith("[") else TEXT_COLOUR)
            for text in strip.lines
            for wrapped in _wrapped(text, width_px - 4 * GAP_PX, font)
        ]
        num_rows = -(-len(tiles) // columns)
        text_height_px = len(lines) * (FONT_PX + 6) + 2 * GAP_PX
        part = Image.new("RGB", (width_px, num_rows * (height_px + GAP_PX) + GAP_PX + text_height_px), GROUND_COLOUR)
        for number, tile in enumerate(tiles):
            row, column = divmod(number, columns)
            part.paste(tile, (GAP_PX + column * (frame_width_px + GAP_PX), GAP_PX + row * (height_px + GAP_PX)))
        draw = ImageDraw.Draw(part)
        for number, (line, colour) in enumerate(lines):
            y = num_rows * (height_px + GAP_PX) + 2 * GAP_PX + number * (FONT_PX + 6)
            draw.text((2 * GAP_PX, y), line, font=font, fill=colour)
        parts.append(part)
    sheet = Image.new("RGB", (width_px, sum(p.height for p in parts)), GROUND_COLOUR)
    y = 0
    for part in parts:
        sheet.paste(part, (0, y))
        y += part.height
    return sheet
