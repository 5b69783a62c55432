"""Flowchart pictures whose boxes are known: a white page, a square grid, one shape or connector a cell.

Sizes are pixels. The ranges are those of the guide's generator, kept inside the cell; what it fixes in pixels (pen,
arrow head, offsets) shrinks with cells smaller than the smallest of its own, 120 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from internvl_chat.contracts import UserError

Direction = Literal["right", "left", "down", "up"]
Point = tuple[float, float]

# What a cell can hold; a line ends in a head, which is an object of its own.
DRAWN_CLASSES = ("rec", "diamond", "ellipse", "circle", "parallel", "line")
# Every label with its COCO category id, in the order in which an answer lists them.
CATEGORY_IDS = {"arrow": 1, "rec": 2, "diamond": 3, "ellipse": 6, "circle": 7, "parallel": 8, "line": 10}
# Cells a side, and how often.
GRID_SHARES = {2: 0.1, 3: 0.1, 4: 0.5, 5: 0.3}
DIRECTIONS: tuple[Direction, ...] = ("right", "left", "down", "up")

WHITE, BLACK = 255, 0
FULL_CELL_PX, SMALLEST_CELL_PX = 120, 24
STRAIGHT_SHARE = 0.6


@dataclass(frozen=True)
class FlowchartStyle:
    """What is drawn: classes (all equally likely), the side of a square page, and cells a side (equally likely).

    Without `image_size_px` a page is 600 to 1000 wide and at most 10 less high; without `grid` it is 2 to 5.
    """

    classes: tuple[str, ...] = DRAWN_CLASSES
    image_size_px: int | None = None
    grid: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        cell_px = (self.image_size_px or 600) // max(self.grid or GRID_SHARES)
        if cell_px < SMALLEST_CELL_PX:
            raise UserError(
                f"a page of {self.image_size_px or 600} pixels with {max(self.grid or GRID_SHARES)} cells a side has "
                f"cells of {cell_px} pixels: expected {SMALLEST_CELL_PX} or more; use larger pages or a smaller grid"
            )

    def page_size(self, rng: np.random.Generator) -> tuple[int, int]:
        if self.image_size_px is not None:
            return self.image_size_px, self.image_size_px
        tens = int(rng.integers(60, 101))
        return tens * 10, int(rng.integers(tens - 1, 101)) * 10

    def cells_a_side(self, rng: np.random.Generator) -> int:
        if self.grid is not None:
            return int(rng.choice(self.grid))
        return int(rng.choice(list(GRID_SHARES), p=list(GRID_SHARES.values())))


@dataclass(frozen=True)
class Flowchart:
    """A page, grey, and its objects row by row: label and box x y w h, which encloses exactly the object's ink."""

    page: Image.Image
    objects: tuple[tuple[str, tuple[int, int, int, int]], ...]


class _Cell:
    """One cell being drawn: black on a mask of its own, so that an object's box can be read off its ink."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        self.rng, self.width, self.height = rng, width, height
        self.scale = min(1.0, min(width, height) / FULL_CELL_PX)
        self.pen = self.px(1, 3)
        self.mask = Image.new("L", (width, height), 0)
        self.draw = ImageDraw.Draw(self.mask)

    def between(self, low: float, high: float) -> int:
        first, last = math.ceil(low), math.floor(high)
        return first if last <= first else int(self.rng.integers(first, last + 1))

    def px(self, low: float, high: float) -> int:
        """A length that the guide gives in pixels, 1 at the least."""
        return max(1, round(self.rng.uniform(low, high) * self.scale))

    def polygon(self, points: Sequence[Point]) -> None:
        self.draw.polygon(points, outline=255, width=self.pen)

    def centre_and_reach(self, low: float, high: float) -> tuple[int, int, int, int]:
        """A centre at `low` to `high` of the cell, and how far a shape around it may reach sideways and up or down."""
        x = self.between(low * self.width, high * self.width)
        y = self.between(low * self.height, high * self.height)
        return x, y, min(x, self.width - 1 - x), min(y, self.height - 1 - y)


def _rec(cell: _Cell) -> None:
    w, h = cell.width, cell.height
    x1, y1 = cell.between(w / 10, w / 6 - 1), cell.between(h / 8, h / 5 - 1)
    cell.draw.rectangle((x1, y1, cell.between(w / 4, w - 4), cell.between(h / 4, h / 2)), outline=255, width=cell.pen)


def _ellipse(cell: _Cell) -> None:
    x, y, reach_x, reach_y = cell.centre_and_reach(3 / 7, 1 / 2)
    a = min(cell.between(cell.width / 6, cell.width * 2 / 5), reach_x)
    b = min(cell.between(cell.height / 8, cell.height / 5), reach_y)
    cell.draw.ellipse((x - a, y - b, x + a, y + b), outline=255, width=cell.pen)


def _circle(cell: _Cell) -> None:
    side = min(cell.width, cell.height)
    x, y, *reach = cell.centre_and_reach(2 / 5, 3 / 5)
    r = min(cell.between(side / 6, side * 2 / 5), *reach)
    cell.draw.ellipse((x - r, y - r, x + r, y + r), outline=255, width=cell.pen)


def _diamond(cell: _Cell) -> None:
    x, y, reach_x, reach_y = cell.centre_and_reach(2 / 5, 3 / 5)
    a = min(cell.between(cell.width / 6, cell.width * 2 / 5), reach_x)
    b = min(cell.between(cell.height / 6, cell.height * 2 / 5), reach_y)
    cell.polygon([(x, y - b), (x + a, y), (x, y + b), (x - a, y)])


def _parallel(cell: _Cell) -> None:
    w, h, k = cell.width, cell.height, cell.scale
    x1, y1 = cell.between(0, w / 4), cell.between(0, h / 4)
    x2, y2 = cell.between(w / 2 + 10 * k, w - 10 * k), cell.between(h / 2 + 10 * k, h / 2 + 30 * k)
    slant = cell.between(6 * k, (x2 - x1) / 3)
    cell.polygon([(x1 + slant, y1), (x2, y1), (x2 - slant, y2), (x1, y2)])


def _line(cell: _Cell) -> Image.Image:
    """A straight or bent connector; returns the mask of its head, which the cell's mask holds too.

    It is laid out as if it ran to the right, as (along, across), and turned into its direction last.
    """
    direction = DIRECTIONS[int(cell.rng.integers(len(DIRECTIONS)))]
    upright = direction in ("down", "up")
    length, breadth = (cell.height, cell.width) if upright else (cell.width, cell.height)

    def placed(along: float, across: float) -> Point:
        if direction in ("left", "up"):
            along = length - 1 - along
        return (across, along) if upright else (along, across)

    head_length = max(3, cell.px(5, 12))
    head_half = max(2, cell.px(4, 10) / 2)
    margin = math.ceil(head_half) + cell.pen
    total = max(cell.between(length / 4, length * 3 / 4), 2 * head_length)
    start = cell.between(margin, length - 1 - margin - total)
    neck, tip = start + total - head_length, start + total
    if cell.rng.random() < STRAIGHT_SHARE:
        across = end = cell.between(margin, breadth - 1 - margin)
        shaft = [placed(start, across), placed(neck, across)]
    else:
        offset = min(cell.px(30, 50), breadth - 1 - 2 * margin)
        across = cell.between(margin, breadth - 1 - margin - offset)
        end = across + offset
        if cell.rng.random() < 0.5:
            across, end = end, across
        corner = cell.between(start + head_length / 2, neck - head_length / 2)
        shaft = [placed(start, across), placed(corner, across), placed(corner, end), placed(neck, end)]
    cell.draw.line(shaft, fill=255, width=cell.pen, joint="curve")
    head = Image.new("L", cell.mask.size, 0)
    corners = [placed(tip, end), placed(neck, end - head_half), placed(neck, end + head_half)]
    ImageDraw.Draw(head).polygon(corners, fill=255)
    cell.mask.paste(255, (0, 0), head)
    return head


_SHAPES = {"rec": _rec, "diamond": _diamond, "ellipse": _ellipse, "circle": _circle, "parallel": _parallel}


def draw_flowchart(rng: np.random.Generator, style: FlowchartStyle) -> Flowchart:
    """Draw a page: every cell of its grid holds one of the style's classes."""
    width, height = style.page_size(rng)
    side = style.cells_a_side(rng)
    cell_width, cell_height = width // side, height // side
    page = Image.new("L", (width, height), WHITE)
    objects = []
    for number in range(side * side):
        row, column = divmod(number, side)
        left, top = column * cell_width, row * cell_height
        label = style.classes[int(rng.integers(len(style.classes)))]
        cell = _Cell(rng, cell_width, cell_height)
        if label == "line":
            layers = [("arrow", _line(cell)), ("line", cell.mask)]
        else:
            _SHAPES[label](cell)
            layers = [(label, cell.mask)]
        page.paste(BLACK, (left, top), cell.mask)
        for name, mask in layers:
            ink = mask.getbbox()
            assert ink is not None, f"{name} left no ink"
            x1, y1, x2, y2 = ink
            objects.append((name, (left + x1, top + y1, x2 - x1, y2 - y1)))
    return Flowchart(page, tuple(objects))
