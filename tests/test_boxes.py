"""Box algebra and the `object_bboxes` files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from internvl_chat.boxes import is_absent, load_boxes, parse_box_text, save_boxes, thousandths_from_pixels
from internvl_chat.contracts import UserError


def boxes_of(text: str, tmp_path: Path, width_px: int = 1280, height_px: int = 720) -> list[list[int]]:
    """From the text of a box file to the rows of the npy, through the real readers and writers."""
    (tmp_path / "object_bboxes.txt").write_text(text)
    boxes_px = parse_box_text(tmp_path / "object_bboxes.txt")
    save_boxes(tmp_path / "object_bboxes.npy", thousandths_from_pixels(boxes_px, width_px, height_px))
    return load_boxes(tmp_path / "object_bboxes.npy").tolist()


def test_worked_example_of_the_dataset(tmp_path: Path) -> None:
    assert boxes_of("320,180,160,90\n", tmp_path) == [[250, 250, 375, 375]]


def test_a_box_that_leaves_the_picture_is_clamped(tmp_path: Path) -> None:
    assert boxes_of("-64,-72,128,144\n1216,648,640,720\n", tmp_path) == [[0, 0, 50, 100], [950, 900, 1000, 1000]]


@pytest.mark.parametrize(
    "line",
    ["0,0,0,0", "10,20,-30,40", "10,20,30,-40", "10,20,0,40", "1300,20,30,40", "10,-90,30,40"],
    ids=["zeros", "negative width", "negative height", "no width", "right of it", "above it"],
)
def test_an_absent_object_is_an_all_zero_row_between_its_neighbours(line: str, tmp_path: Path) -> None:
    rows = boxes_of(f"320,180,160,90\n{line}\n320,180,160,90\n", tmp_path)
    assert rows == [[250, 250, 375, 375], [0, 0, 0, 0], [250, 250, 375, 375]]


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("640,360,0.2,0.2", [500, 500, 501, 501]),
        ("400.1,350,1,90", [312, 486, 314, 611]),
        ("1279.9,719.9,30,30", [999, 999, 1000, 1000]),
        ("-30,-30,30.1,30.1", [0, 0, 1, 1]),
    ],
    ids=["a point", "a line", "last corner", "first corner"],
)
def test_what_is_in_the_picture_keeps_an_area_however_small(line: str, row: list[int], tmp_path: Path) -> None:
    assert boxes_of(f"{line}\n", tmp_path) == [row]


@pytest.mark.parametrize(
    "line", ["320.0,180.0,160.0,90.0", "320 180 160 90", "320\t180\t160\t90", " 320, 180, 160, 90 ", "3.2e2,180,160,90"]
)
def test_numbers_may_be_decimal_and_separated_by_commas_spaces_or_tabs(line: str, tmp_path: Path) -> None:
    assert boxes_of(line + "\n\n", tmp_path) == [[250, 250, 375, 375]]


@pytest.mark.parametrize(
    "line",
    ["1,2,3", "1,2,3,4,5", "1,2,x,4", "1,2,nan,4", "inf,2,3,4", "", "   ", "x y w h", "1;2;3;4", "1,,2,3,4"],
)
def test_a_broken_line_is_named_by_file_and_number(line: str, tmp_path: Path) -> None:
    path = tmp_path / "object_bboxes.txt"
    path.write_text(f"1,2,3,4\n5,6,7,8\n{line}\n9,10,11,12\n")
    with pytest.raises(UserError, match=rf"^{path}:3: "):
        parse_box_text(path)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe1,2,3,4\n"], ids=["empty", "blank", "not utf-8"])
def test_a_file_without_readable_lines_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "object_bboxes.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=str(path)):
        parse_box_text(path)


def test_a_missing_box_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="object_bboxes.txt"):
        parse_box_text(tmp_path / "object_bboxes.txt")


def test_saving_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "object_bboxes.npy"
    save_boxes(path, np.array([[1, 2, 3, 4]]))
    save_boxes(path, np.array([[5, 6, 7, 8], [0, 0, 0, 0]]))
    assert load_boxes(path).tolist() == [[5, 6, 7, 8], [0, 0, 0, 0]]
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_save_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "object_bboxes.npy"
    save_boxes(path, np.array([[1, 2, 3, 4]]))
    with pytest.raises(ValueError, match="pickle|Object"):
        save_boxes(path, np.array([[None, 2, 3, 4]], dtype=object))
    assert load_boxes(path).tolist() == [[1, 2, 3, 4]]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "array",
    [
        np.array([[0.0, 0.0, 10.0, 10.0]]),
        np.array([1, 2, 3, 4]),
        np.array([[1, 2, 3]]),
        np.array([[0, 0, 10, 1001]]),
        np.array([[-1, 0, 10, 10]]),
        np.array([[True, True, True, True]]),
        np.array([["0", "0", "1", "1"]]),
    ],
    ids=["float", "one axis", "three columns", "over 1000", "negative", "bool", "text"],
)
def test_an_array_that_is_no_track_in_thousandths_is_refused(array: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "object_bboxes.npy"
    np.save(path, array)
    with pytest.raises(UserError, match=str(path)):
        load_boxes(path)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "object_bboxes.npy"
    np.save(path, np.array([[1, 2, 3, 4]], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=str(path)):
        load_boxes(path)


@pytest.mark.parametrize("content", [b"", b"1,2,3,4\n", b"\x93NUMPY\x01\x00v"], ids=["empty", "text", "cut off"])
def test_a_file_that_is_no_npy_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "object_bboxes.npy"
    path.write_bytes(content)
    with pytest.raises(UserError, match=str(path)):
        load_boxes(path)


def test_an_archive_of_arrays_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "object_bboxes.npy"
    with path.open("wb") as file:
        np.savez(file, boxes=np.array([[1, 2, 3, 4]]))
    with pytest.raises(UserError, match=str(path)):
        load_boxes(path)


def test_a_missing_npy_says_which_command_writes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="generate_npy_bboxes.py"):
        load_boxes(tmp_path / "object_bboxes.npy")


def test_absent_is_what_has_no_area() -> None:
    boxes = np.array([[[0, 0, 0, 0], [1, 2, 3, 4]], [[5, 5, 5, 9], [5, 9, 8, 9]]])
    assert is_absent(boxes).tolist() == [[True, False], [True, True]]


def slow_thousandths(box_px: tuple[float, ...], width_px: int, height_px: int) -> list[int]:
    x, y, w, h = box_px
    if w <= 0 or h <= 0:
        return [0, 0, 0, 0]
    low, high = [], []
    for start, length, side in ((x, w, width_px), (y, h, height_px)):
        first, last = (min(max(v / side, 0), 1) * 1000 for v in (start, start + length))
        if last <= first:
            return [0, 0, 0, 0]
        closes = round(last) <= round(first)
        low.append(math.floor(first) if closes else round(first))
        high.append(math.ceil(last) if closes else round(last))
    return [*low, *high]


pixels = st.integers(-3000, 3000) | st.floats(-3000, 3000).map(lambda v: round(v, 3))


# It writes files, which takes as long as the machine is busy.
@settings(deadline=None)
@given(
    boxes_px=st.lists(st.tuples(pixels, pixels, pixels, pixels), min_size=1, max_size=6),
    size=st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
    separator=st.sampled_from([",", " ", "\t", ", "]),
)
def test_any_track_survives_text_and_npy_as_the_slow_twin_has_it(
    tmp_path_factory: pytest.TempPathFactory, boxes_px: list[tuple[float, ...]], size: tuple[int, int], separator: str
) -> None:
    text = "".join(separator.join(map(repr, box)) + "\n" for box in boxes_px)
    folder = tmp_path_factory.getbasetemp() / "twin"
    folder.mkdir(exist_ok=True)
    assert boxes_of(text, folder, *size) == [slow_thousandths(box, *size) for box in boxes_px]
