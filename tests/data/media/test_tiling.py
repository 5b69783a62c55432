"""Grids, the parts that tiles show, and boxes on them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from internvl_chat.data.media.tiling import (
    WHOLE,
    Part,
    View,
    boxes_on_tiles,
    choose_grid,
    cut_grid,
    cut_tile,
    grid_views,
    part_around,
    squared_part,
)

PICTURE = np.random.default_rng(0).integers(0, 256, (34, 50, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size_px", "of_six", "of_twelve"),
    [
        ((448, 448), (1, 1), (1, 1)),
        ((500, 500), (1, 1), (1, 1)),
        ((2000, 2000), (2, 2), (3, 3)),
        ((800, 600), (3, 2), (4, 3)),
        ((640, 480), (3, 2), (4, 3)),
        ((600, 800), (2, 3), (3, 4)),
        ((1280, 720), (2, 1), (4, 2)),
        ((1920, 1080), (2, 1), (4, 2)),
        ((640, 360), (2, 1), (2, 1)),
        ((1344, 896), (3, 2), (3, 2)),
        ((3000, 1000), (3, 1), (6, 2)),
        ((1000, 100), (6, 1), (10, 1)),
        ((100, 1000), (1, 6), (1, 10)),
    ],
)
def test_grids_are_the_golden_ones(size_px: tuple[int, int], of_six: tuple, of_twelve: tuple) -> None:
    assert choose_grid(size_px, 1, 6, 448) == of_six
    assert choose_grid(size_px, 1, 12, 448) == of_twelve
    assert choose_grid(size_px, 1, 1, 448) == (1, 1)


def test_a_least_number_of_tiles_leaves_out_smaller_grids() -> None:
    assert choose_grid((448, 448), 2, 6, 448) == (2, 2)
    assert choose_grid((1000, 100), 2, 3, 448) == (3, 1)


def parts_of(columns: int, rows: int, use_thumbnail: bool = False) -> list[Part]:
    return [view.part for view in grid_views(7, columns, rows, use_thumbnail)]


def test_parts_go_row_by_row_and_the_thumbnail_comes_last() -> None:
    assert parts_of(2, 1, use_thumbnail=True) == [(0, 0, 0.5, 1), (0.5, 0, 1, 1), WHOLE]
    assert parts_of(2, 1) == [(0, 0, 0.5, 1), (0.5, 0, 1, 1)]
    assert parts_of(1, 2) == [(0, 0, 1, 0.5), (0, 0.5, 1, 1)]
    assert grid_views(7, 1, 1, use_thumbnail=True) == [View(7, WHOLE)]
    assert {view.picture for view in grid_views(7, 2, 3, use_thumbnail=True)} == {7}


def test_the_cells_of_a_grid_are_those_of_the_resized_picture() -> None:
    columns, rows, side = 3, 2, 20
    resized = np.asarray(Image.fromarray(PICTURE).resize((columns * side, rows * side), Image.Resampling.BICUBIC))
    tiles = cut_grid(PICTURE, (columns, rows), side)
    assert len(tiles) == 6
    for number, (tile, part) in enumerate(zip(tiles, parts_of(columns, rows), strict=True)):
        row, column = divmod(number, columns)
        assert np.array_equal(tile, resized[row * side : (row + 1) * side, column * side : (column + 1) * side])
        alone = cut_tile(PICTURE, part, side, (0, 0, 0)).astype(int)
        assert np.abs(alone - tile).max() <= 1


@pytest.mark.parametrize("size_px", [(50, 33), (33, 50), (21, 20), (7, 7)])
def test_a_squared_picture_has_its_margin_in_the_fill_colour(size_px: tuple[int, int]) -> None:
    width_px, height_px = size_px
    side_px = max(size_px)
    picture = np.full((height_px, width_px, 3), 200, dtype=np.uint8)
    tile = cut_tile(picture, squared_part(size_px), side_px, (1, 2, 3))
    left, top = (side_px - width_px) // 2, (side_px - height_px) // 2
    expected = np.full((side_px, side_px, 3), (1, 2, 3), dtype=np.uint8)
    expected[top : top + height_px, left : left + width_px] = 200
    assert np.array_equal(tile, expected)


def test_a_box_is_cut_to_each_tile_it_meets() -> None:
    box = np.array([[250, 100, 750, 400]])
    parts = parts_of(2, 2, use_thumbnail=True)
    assert boxes_on_tiles(box.repeat(5, axis=0), parts).tolist() == [
        [500, 200, 1000, 800],
        [0, 200, 500, 800],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [250, 100, 750, 400],
    ]


def test_a_box_that_touches_a_tile_with_its_edge_is_absent_there() -> None:
    box = np.array([[100, 100, 500, 900]])
    assert boxes_on_tiles(box.repeat(2, axis=0), parts_of(2, 1)).tolist() == [
        [200, 100, 1000, 900],
        [0, 0, 0, 0],
    ]


def test_every_box_is_itself_on_the_whole_picture() -> None:
    corners = np.sort(np.random.default_rng(1).integers(0, 1001, (300, 2, 2)), axis=1).reshape(-1, 4)
    corners = corners[(corners[:, 0] < corners[:, 2]) & (corners[:, 1] < corners[:, 3])]
    assert np.array_equal(boxes_on_tiles(corners, [WHOLE] * len(corners)), corners)
    assert boxes_on_tiles(np.zeros((1, 4), dtype=int), [(0.0, 0.0, 0.5, 0.5)]).tolist() == [[0, 0, 0, 0]]


def test_a_box_on_a_squared_picture_moves_with_it() -> None:
    assert boxes_on_tiles(np.array([[0, 0, 1000, 1000]]), [squared_part((80, 40))]).tolist() == [[0, 250, 1000, 750]]


def test_a_crop_stays_in_the_picture_and_shows_the_box() -> None:
    part = part_around(np.array([0, 400, 200, 600]), 0.5)
    assert part == pytest.approx((0, 0.3, 0.3, 0.7))
    assert boxes_on_tiles(np.array([[0, 400, 200, 600]]), [part]).tolist() == [[0, 250, 667, 750]]
