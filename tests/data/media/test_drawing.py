"""Contact sheets."""

from __future__ import annotations

import numpy as np
from PIL import Image

from internvl_chat.data.media.drawing import (
    BOX_COLOUR,
    DIM_COLOUR,
    GAP_PX,
    TEXT_COLOUR,
    Strip,
    contact_sheet,
)

BOXES = np.array([[250, 250, 750, 750], [0, 0, 0, 0], [0, 0, 1000, 500]])


def strip(num_frames: int, lines: list[str], grey: int = 90) -> Strip:
    return Strip(np.full((num_frames, 30, 40, 3), grey, dtype=np.uint8), BOXES[:num_frames], lines)


def box_pixels(image: Image.Image) -> np.ndarray:
    return (np.asarray(image) == BOX_COLOUR).all(-1)


def test_a_box_is_drawn_where_it_is() -> None:
    sheet = contact_sheet([strip(1, ["a caption"])], frame_width_px=160)
    rows, columns = np.nonzero(box_pixels(sheet)[: 120 + GAP_PX])
    assert (columns.min() - GAP_PX, columns.max() - GAP_PX) == (40, 120)
    assert (rows.min() - GAP_PX, rows.max() - GAP_PX) == (30, 90)


def test_an_absent_box_is_written_and_not_drawn() -> None:
    frames = np.full((1, 30, 40, 3), 90, dtype=np.uint8)
    sheet = contact_sheet([Strip(frames, BOXES[1:2], [])], frame_width_px=160)
    rows, columns = np.nonzero(box_pixels(sheet))
    assert len(rows) > 0 and rows.max() < 30 and columns.max() < 80


def test_frames_beyond_a_row_take_another_row() -> None:
    one, two = (contact_sheet([strip(3, ["text"])], frames_per_row=n) for n in (3, 2))
    assert two.width < one.width
    assert two.height == one.height + 120 + GAP_PX


def test_strips_stand_one_under_the_other() -> None:
    alone = contact_sheet([strip(2, ["first"])])
    both = contact_sheet([strip(2, ["first"]), strip(2, ["second"], grey=200)])
    assert both.width == alone.width and both.height == 2 * alone.height
    assert np.array_equal(np.asarray(both)[: alone.height], np.asarray(alone))


def test_long_text_is_wrapped_into_more_lines() -> None:
    short, long = (contact_sheet([strip(3, [text])]) for text in ("words", "many more words " * 20))
    assert long.width == short.width and long.height > short.height


def test_a_wrapped_line_keeps_the_colour_it_begins_in() -> None:
    """A question is marked by its bracket; a caption's line that happens to begin with one is none."""

    def text_colours(line: str) -> set[tuple[int, ...]]:
        pixels = np.asarray(contact_sheet([strip(2, [line])]))[120 + 2 * GAP_PX :].reshape(-1, 3)
        return {colour for colour in (TEXT_COLOUR, DIM_COLOUR) if (pixels == colour).all(-1).any()}

    assert text_colours("[human] what does it do, " * 8) == {DIM_COLOUR}
    assert text_colours("it does [this and that] " * 12) == {TEXT_COLOUR}
