"""Pictures to tiles: which grid a picture is cut into, which part of it a tile shows, and where a box is on the tile.

A part is x1 y1 x2 y2 in fractions of the picture's sides; beyond 0 to 1 lies the margin that makes a picture square.
Shape letters: T tiles, H and W the picture's pixels, S the tile's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from internvl_chat.boxes import BoxArray, is_absent, thousandths_from_fractions
from internvl_chat.constants import BOX_SCALE

Part = tuple[float, float, float, float]
WHOLE: Part = (0.0, 0.0, 1.0, 1.0)


class View(NamedTuple):
    """What a tile shows: a part of one of the pictures shown, which are counted from 0.

    `grid` is the columns and rows that the picture is cut into, where the part is a cell of that grid.
    """

    picture: int
    part: Part
    grid: tuple[int, int] | None = None


def choose_grid(size_px: tuple[int, int], min_tiles: int, max_tiles: int, tile_px: int) -> tuple[int, int]:
    """Columns and rows of the grid whose shape is nearest to the picture's.

    Of two equally near the one of more tiles is taken if the picture has more than half of its pixels.

    Source: InternVL 1.5's dynamic high resolution, arXiv 2404.16821, section 3.3.
    """
    width_px, height_px = size_px
    grids = sorted(
        ((columns, rows) for columns in range(1, max_tiles + 1) for rows in range(1, max_tiles // columns + 1)),
        key=lambda grid: (grid[0] * grid[1], grid),
    )
    best, nearest = (1, 1), float("inf")
    for columns, rows in grids:
        if columns * rows < min_tiles:
            continue
        distance = abs(width_px / height_px - columns / rows)
        is_large = width_px * height_px > 0.5 * tile_px**2 * columns * rows
        if distance < nearest or (distance == nearest and is_large):
            best, nearest = (columns, rows), distance
    return best


def grid_views(picture: int, columns: int, rows: int, use_thumbnail: bool) -> list[View]:
    """The cells of a grid, row by row, and at last the whole picture if it is cut and a thumbnail is wanted."""
    if columns * rows == 1:
        return [View(picture, WHOLE)]
    views = [
        View(picture, (column / columns, row / rows, (column + 1) / columns, (row + 1) / rows), (columns, rows))
        for row in range(rows)
        for column in range(columns)
    ]
    return [*views, View(picture, WHOLE)] if use_thumbnail else views


def squared_part(size_px: tuple[int, int]) -> Part:
    """The square around a picture, its longer side as the side; the margin is cut to whole pixels."""
    width_px, height_px = size_px
    side_px = max(size_px)
    left, top = (side_px - width_px) // 2 / width_px, (side_px - height_px) // 2 / height_px
    return (-left, -top, side_px / width_px - left, side_px / height_px - top)


def part_around(box: npt.NDArray[np.integer], margin: float) -> Part:
    """The part that a box [4] in thousandths takes, with a margin of so many of its sides, inside the picture."""
    x1, y1, x2, y2 = (box / BOX_SCALE).tolist()
    dx, dy = margin * (x2 - x1), margin * (y2 - y1)
    return (max(x1 - dx, 0.0), max(y1 - dy, 0.0), min(x2 + dx, 1.0), min(y2 + dy, 1.0))


def boxes_on_tiles(boxes: BoxArray, parts: Sequence[Part]) -> BoxArray:
    """Boxes [T, 4] of pictures, in their thousandths, cut to the part of each tile and in the tile's thousandths.

    A box that does not meet its part is absent: all zero.
    """
    corners = boxes / BOX_SCALE
    edges = np.array(parts, dtype=np.float64).reshape(-1, 4)
    origins = np.tile(edges[:, :2], 2)
    sides = np.tile(edges[:, 2:] - edges[:, :2], 2)
    on_tiles = thousandths_from_fractions((corners - origins) / sides)
    on_tiles[is_absent(boxes)] = 0
    return on_tiles


def cut_grid(picture_HW3: npt.NDArray[np.uint8], grid: tuple[int, int], tile_px: int) -> npt.NDArray[np.uint8]:
    """All cells of a picture's grid, row by row, as tiles [T, S, S, 3]: the picture is resized, bicubic, then cut."""
    columns, rows = grid
    size_px = (columns * tile_px, rows * tile_px)
    resized = np.array(Image.fromarray(picture_HW3).resize(size_px, Image.Resampling.BICUBIC))
    cells = resized.reshape(rows, tile_px, columns, tile_px, 3).swapaxes(1, 2)
    return cells.reshape(rows * columns, tile_px, tile_px, 3)


def cut_tile(
    picture_HW3: npt.NDArray[np.uint8], part: Part, tile_px: int, fill: tuple[int, int, int]
) -> npt.NDArray[np.uint8]:
    """One part of a picture as a tile [S, S, 3], bicubic; what lies beyond the picture has the colour `fill`."""
    image = Image.fromarray(picture_HW3)
    x1, y1, x2, y2 = part
    edges_px = (x1 * image.width, y1 * image.height, x2 * image.width, y2 * image.height)
    if x1 < 0 or y1 < 0 or x2 > 1 or y2 > 1:
        left, top, right, bottom = (round(edge) for edge in edges_px)
        canvas = Image.new("RGB", (right - left, bottom - top), fill)
        canvas.paste(image, (-left, -top))
        image, edges_px = canvas, (0, 0, canvas.width, canvas.height)
    return np.asarray(image.resize((tile_px, tile_px), Image.Resampling.BICUBIC, box=edges_px))
