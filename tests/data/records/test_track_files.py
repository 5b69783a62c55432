"""Tracks given by hand: the challenge's two files, a record's form as JSON, and one box for every picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from internvl_chat.boxes import save_boxes
from internvl_chat.contracts import UserError
from internvl_chat.data.media.sources import MediaHeader
from internvl_chat.data.records.track_files import track_of_box, tracks_of_file
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


@pytest.mark.parametrize(("box", "in_pixels"), [((100, 200, 300, 400), False), ((20, 10, 60, 20), True)])
def test_one_box_holds_for_every_picture(box: tuple[int, ...], in_pixels: bool) -> None:
    track = track_of_box(box, in_pixels=in_pixels)
    assert boxes_at(track, np.array([0, 2]), HEADER, "here").tolist() == [BOXES[0]] * 2


def test_a_box_far_outside_the_picture_is_in_another_unit() -> None:
    with pytest.raises(UserError, match="lies far outside"):
        boxes_at(track_of_box((20, 10, 900, 400), in_pixels=True), np.arange(3), HEADER, "here")


@pytest.mark.parametrize("box", [(1, 2, 1, 4), (1, 2, 3), (1, 2, float("nan"), 4)])
def test_a_box_without_area_is_told(box: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="expected x1 y1 x2 y2"):
        track_of_box(box)
