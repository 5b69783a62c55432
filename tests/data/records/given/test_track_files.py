"""Tracks given by hand: the challenge's two files, a record's form as JSON, and one box for every picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internvl_chat.boxes import save_boxes
from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.media.sources import MediaHeader
from internvl_chat.data.records.given.given_boxes import check_given_boxes, check_unit, track_of_box
from internvl_chat.data.records.given.track_files import tracks_of_file
from internvl_chat.data.records.tracks import boxes_at

# Three frames of 200 x 50 pixels.
HEADER = MediaHeader(3, ((200, 50),), 4.0)
BOXES = [[100, 200, 300, 400], [0, 0, 0, 0], [105, 200, 305, 400]]
IN_FILES = {
    ".txt": "20,10,40,10\n0,0,0,0\n21,10,40,10\n",
    ".json": json.dumps(
        [{"name": "dog", "unit": "thousandths", "order": "xyxy", "boxes": {"0": BOXES[0], "2": BOXES[2]}}]
    ),
}


@pytest.mark.parametrize("suffix", [".npy", ".txt", ".json"])
def test_every_file_gives_the_same_track(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"track{suffix}"
    if suffix == ".npy":
        save_boxes(path, np.array(BOXES))
    else:
        path.write_text(IN_FILES[suffix])
    (track,) = tracks_of_file(path, "dog")
    assert track.name == "dog"
    assert boxes_at(track, np.arange(3), HEADER, "here").tolist() == BOXES


def test_json_may_say_what_its_pixels_were_counted_in(tmp_path: Path) -> None:
    fields = {"name": "cat", "unit": "pixels", "order": "xywh", "boxes": [[20, 10, 40, 10]] * 3}
    (tmp_path / "a.json").write_text(json.dumps({"width": 100, "height": 50, "tracks": [fields]}))
    (track,) = tracks_of_file(tmp_path / "a.json")
    assert track.name == "cat"
    with pytest.raises(UserError, match="say 100 x 50, the file is 200 x 50"):
        boxes_at(track, np.arange(3), HEADER, "here")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "1,2,3,4", r"a\.csv: expected a track as \.npy, \.txt or \.json"),
        ("a.txt", "1,2,3", r"a\.txt:1: expected four finite numbers"),
        ("a.json", "{}", r"a\.json: 'tracks' is None"),
    ],
)
def test_a_file_that_is_no_track_is_told(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        tracks_of_file(tmp_path / name)


@pytest.mark.parametrize(
    ("box", "unit", "order"),
    [
        ((100, 200, 300, 400), "thousandths", "xyxy"),
        ((20, 10, 60, 20), "pixels", "xyxy"),
        ((20, 10, 40, 10), "pixels", "xywh"),
        ((0.1, 0.2, 0.3, 0.4), "unit", "xyxy"),
    ],
)
def test_one_box_holds_for_every_picture(box: tuple[int, ...], unit: str, order: str) -> None:
    track = track_of_box(box, "dog", unit, order)
    assert boxes_at(track, np.array([0, 2]), HEADER, "here").tolist() == [BOXES[0]] * 2


def test_a_box_far_outside_the_picture_is_in_another_unit() -> None:
    with pytest.raises(UserError, match="lies far outside"):
        boxes_at(track_of_box((20, 10, 900, 400), unit="pixels"), np.arange(3), HEADER, "here")


@pytest.mark.parametrize(
    ("box", "unit", "order", "said"),
    [
        (
            (1, 2, 1, 4),
            "thousandths",
            "xyxy",
            "1,2,1,4 has no area: expected x1,y1,x2,y2 .*; if it is x,y,w,h, .* 1,2,2,6",
        ),
        ((9, 2, -1, 4), "pixels", "xyxy", "9,2,-1,4 has no area: expected x1,y1,x2,y2 with x1 < x2 and y1 < y2$"),
        ((1, 2, 0, 4), "pixels", "xywh", "expected x,y,w,h with a width"),
        ((1, 2, 3), "thousandths", "xyxy", "four finite numbers"),
        ((1, 2, float("nan"), 4), "thousandths", "xyxy", "four finite numbers"),
        ((0.1, 0.2, 0.3, 0.4), "thousandths", "xyxy", "in fractions, expected thousandths .* 100,200,300,400"),
        ((0.1, 0.2, 0.3, 0.4), "pixels", "xyxy", "in fractions, expected pixels"),
        (
            (0, 40, 1200, 800),
            "thousandths",
            "xyxy",
            "out of range: expected thousandths, 0 to 1000 .*--box_unit pixels",
        ),
        ((-90, 40, 100, 800), "thousandths", "xyxy", "out of range"),
        ((10, 40, 20, 80), "unit", "xyxy", "out of range: expected unit, 0 to 1 "),
    ],
)
def test_a_box_that_cannot_be_one_is_told_with_what_was_expected(
    box: tuple[float, ...], unit: str, order: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        track_of_box(box, "dog", unit, order)


def test_boxes_at_the_edge_are_believed() -> None:
    check_unit(np.array([[-20, 0, 1020, 1000], [0, 0, 0, 0]]), "thousandths")
    check_unit(np.array([[0, 0, 1, 1]]), "unit")


def test_a_box_in_pixels_lies_in_its_picture(tmp_path: Path) -> None:
    Image.new("RGB", (320, 160)).save(tmp_path / "a.png")
    inside, outside = (Sample("a", (), "a", (tmp_path / "a.png",), tracks=(track_of_box(box, unit="pixels"),))
                       for box in ((300, 40, 330, 80), (400, 40, 500, 80)))  # fmt: skip
    check_given_boxes(inside)
    with pytest.raises(UserError, match="400,40,500,80 lies outside the picture: .*a.png has 320 x 160 pixels"):
        check_given_boxes(outside)


def test_a_text_of_corners_is_told(tmp_path: Path) -> None:
    for number in range(6):
        Image.new("RGB", (320, 160)).save(tmp_path / f"{number}.png")
    (tmp_path / "boxes.txt").write_text("200,80,300,150\n" * 6)
    sample = Sample("a", (), "a", video_path=tmp_path, tracks=tracks_of_file(tmp_path / "boxes.txt"))
    with pytest.raises(UserError, match="'object': as x,y,w,h boxes leave the 320 x 160 pixels"):
        check_given_boxes(sample)
