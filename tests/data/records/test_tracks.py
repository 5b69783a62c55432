"""Tracks at the frames that are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from internvl_chat.boxes import save_boxes
from internvl_chat.contracts import TrackFile, TrackRows, UserError
from internvl_chat.data.media.sources import MediaHeader
from internvl_chat.data.records.reader import RecordReader
from internvl_chat.data.records.tracks import boxes_at

# Ten frames at four a second, 200 x 100 pixels.
HEADER = MediaHeader(10, ((200, 100),), 4.0)
BOX = [100, 200, 300, 400]
CLIP = {"id": 1, "video": "clip.mp4", "conversations": [{"from": "human", "value": "<video>\nwhat?"}]}


def track_of(boxes: Any, unit: str = "thousandths", order: str = "xyxy", **fields: Any) -> TrackRows:
    track = {"name": "dog", "boxes": boxes, "unit": unit, "order": order, **fields}
    sizes = {key: track.pop(key) for key in ("width", "height") if key in track}
    (read,) = RecordReader(Path("/data")).read({**CLIP, **sizes, "tracks": [track]}, "a.jsonl:3").tracks
    assert isinstance(read, TrackRows)
    return read


def rows(track: TrackRows, indices: list[int], header: MediaHeader = HEADER) -> list[list[int]]:
    return boxes_at(track, np.array(indices), header, "a.jsonl:3").tolist()


@pytest.mark.parametrize(
    ("box", "unit", "order"),
    [
        ([100, 200, 300, 400], "thousandths", "xyxy"),
        ([100, 200, 200, 200], "thousandths", "xywh"),
        ([0.1, 0.2, 0.3, 0.4], "unit", "xyxy"),
        ([0.1, 0.2, 0.2, 0.2], "unit", "xywh"),
        ([20, 20, 60, 40], "pixels", "xyxy"),
        ([20, 20, 40, 20], "pixels", "xywh"),
    ],
)
def test_every_unit_and_order_gives_the_same_box(box: list[float], unit: str, order: str) -> None:
    assert rows(track_of({"3": box}, unit, order), [3]) == [BOX]


def test_a_list_by_frame_has_a_row_for_each() -> None:
    boxes = [[n, n, 500 + n, 500 + n] for n in range(10)]
    assert rows(track_of(boxes), [0, 4, 4, 9]) == [boxes[0], boxes[4], boxes[4], boxes[9]]
    for wrong in (boxes[:9], [*boxes, BOX]):
        with pytest.raises(UserError, match=r"a.jsonl:3: track 'dog': .*(9|11) boxes for 10 pictures|names frame 10"):
            rows(track_of(wrong), [0])


def test_frames_that_are_not_named_have_no_box() -> None:
    track = track_of({"7": [0, 0, 7, 7], "2": [0, 0, 2, 2]})
    assert rows(track, [1, 2, 3, 7]) == [[0, 0, 0, 0], [0, 0, 2, 2], [0, 0, 0, 0], [0, 0, 7, 7]]


def test_a_second_stands_for_the_frames_around_it() -> None:
    track = track_of({"0": [0, 0, 9, 1], "1": [0, 0, 9, 2], "2": [0, 0, 9, 3]}, by="second")
    #                     0 s  0.25 0.5 (as near to both: the earlier)  0.75 1 1.25 1.5 1.75 2 2.25
    assert [box[3] for box in rows(track, list(range(10)))] == [1, 1, 1, 2, 2, 2, 2, 3, 3, 3]
    sparse = track_of({"0.5": [0, 0, 9, 1], "2": [0, 0, 9, 3]}, by="second")
    assert [box[3] for box in rows(sparse, list(range(10)))] == [1, 1, 1, 1, 1, 0, 3, 3, 3, 3]


def test_a_list_by_second_begins_at_zero() -> None:
    track = track_of([[0, 0, 9, 1], [0, 0, 9, 2]], by="second")
    assert [box[3] for box in rows(track, [0, 4, 7])] == [1, 2, 0]


def test_absent_frames_have_no_box_whatever_their_row_says() -> None:
    assert rows(track_of([BOX] * 10, absent=[1, 8]), [0, 1, 8, 9]) == [BOX, [0] * 4, [0] * 4, BOX]


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [300, 200, 100, 400], [-1, -1, -1, -1], [1000, 0, 1400, 500]])
def test_a_box_without_area_in_the_picture_is_absent(box: list[int]) -> None:
    assert rows(track_of({"0": box}), [0]) == [[0, 0, 0, 0]]


def test_a_box_is_cut_at_the_pictures_edge() -> None:
    assert rows(track_of({"0": [-20, 50, 220, 110]}, "pixels"), [0]) == [[0, 500, 1000, 1000]]


@pytest.mark.parametrize(
    ("box", "unit"),
    [([100, 200, 300, 400], "unit"), ([300, 200, 5000, 400], "thousandths"), ([0, 0, 600, 9], "pixels")],
)
def test_a_box_far_outside_the_picture_is_in_another_unit(box: list[float], unit: str) -> None:
    with pytest.raises(UserError, match=r"a.jsonl:3: track 'dog': the box .*picture 6 .*'unit' and 'order'"):
        rows(track_of({"6": box}, unit), [5, 6])


def test_pixels_belong_to_the_size_that_the_record_states() -> None:
    assert rows(track_of({"0": [20, 20, 60, 40]}, "pixels", width=200, height=100), [0]) == [BOX]
    with pytest.raises(UserError, match=r"say 400 x 200, the file is 200 x 100"):
        rows(track_of({"0": [20, 20, 60, 40]}, "pixels", width=400, height=200), [0])


def test_images_have_their_own_sizes() -> None:
    header = MediaHeader(2, ((200, 100), (100, 50)))
    track = track_of([[20, 20, 60, 40], [20, 20, 60, 40]], "pixels")
    assert rows(track, [0, 1], header) == [BOX, [200, 400, 600, 800]]


@pytest.mark.parametrize("fields", [{"boxes": {"10": BOX}}, {"boxes": {"3": BOX}, "absent": [10]}])
def test_a_track_longer_than_the_video_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="names frame 10 of 10, expected 0 to 9"):
        rows(track_of(**fields), [0])


def test_a_second_behind_the_videos_end_is_refused() -> None:
    assert rows(track_of({"3": BOX}, by="second"), [9]) == [[0, 0, 0, 0]]  # in the half second that it reaches
    with pytest.raises(UserError, match=r"a.jsonl:3: track 'dog': names second 3.1 of a video that lasts 2.50 s"):
        rows(track_of({"0": BOX, "3.1": BOX}, by="second"), [0])


def test_a_track_by_second_needs_a_rate() -> None:
    with pytest.raises(UserError, match="states no rate: give it by frame"):
        rows(track_of({"1": BOX}, by="second"), [0], MediaHeader(10, ((200, 100),)))


def test_a_track_file_has_a_row_for_each_frame(tmp_path: Path) -> None:
    path = tmp_path / "object_bboxes.npy"
    boxes = np.arange(40).reshape(10, 4)
    save_boxes(path, boxes)
    assert boxes_at(TrackFile("dog", path), np.array([2, 5]), HEADER, "").tolist() == boxes[[2, 5]].tolist()
    save_boxes(path, boxes[:7])
    with pytest.raises(UserError, match=f"{path}: has 7 boxes for the 10 frames"):
        boxes_at(TrackFile("dog", path), np.array([2]), HEADER, "")


def test_tracks_are_equal_when_their_content_is() -> None:
    first, same, other = track_of([BOX] * 10), track_of([BOX] * 10), track_of([BOX] * 9 + [[0, 0, 1, 1]])
    assert first == same and hash(first) == hash(same)
    assert first != other


def test_between_key_frames_the_object_moves_evenly() -> None:
    keys = {"2": [20, 10, 40, 20], "6": [60, 10, 120, 60]}
    track = track_of(keys, "pixels", interpolate=True, absent=[5])
    assert rows(track, [1, 2, 3, 5, 6, 7]) == [
        [0, 0, 0, 0],
        [100, 100, 200, 200],
        [150, 100, 300, 300],
        [0, 0, 0, 0],
        [300, 100, 600, 600],
        [0, 0, 0, 0],
    ]
    by_second = track_of({"0.5": keys["2"], "1.5": keys["6"]}, "pixels", by="second", interpolate=True, absent=[5])
    assert rows(by_second, [2, 3, 5, 6]) == rows(track, [2, 3, 5, 6])


def test_a_key_frame_without_area_is_no_place_to_move_to() -> None:
    with pytest.raises(UserError, match="the box of '4' has no area: leave it out, and list .* as 'absent'"):
        track_of({"0": [20, 10, 40, 20], "4": [0, 0, 0, 0], "9": [20, 10, 40, 20]}, "pixels", interpolate=True)


@pytest.mark.parametrize("changes", [{"interpolate": 1}, {"interpolate": True, "boxes": [BOX]}, {"counted_in": "file"}])
def test_keys_of_a_track_are_checked(changes: dict) -> None:
    with pytest.raises(UserError, match="'(interpolate|counted_in)' is"):
        track_of(**{"boxes": {"0": BOX}, **changes})
