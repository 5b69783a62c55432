"""What is saved can be trained on and opened again, and every text on the page is text."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from internvl_chat.boxes import load_boxes, parse_box_text, thousandths_from_pixels
from internvl_chat.contracts import UserError
from internvl_chat.trackers.following import GivenObject
from internvl_chat.trackers.frames import Footage
from internvl_chat.trackers.lists import TrackerSettings
from internvl_chat.trackers.protocol import BoxPx, Frame, Sighting
from internvl_chat.web.film import boxes_to_draw, drawn_boxes
from internvl_chat.web.markup import comparison, confidence_plot, objects_table
from internvl_chat.web.pointing import DrawnBox, PointedClip
from internvl_chat.web.record_lines import write_files
from internvl_chat.web.sessions import Sessions
from internvl_chat.web.shelf import Shelf
from internvl_chat.web.tracking import Progress, Stopped, filmed, tracked
from internvl_chat.web.workbench import Workbench

SCRIPT = "<script>alert(1)</script> & <img src=x onerror=alert(2)>"


@pytest.fixture
def video(shapes_root: Path) -> Path:
    return sorted(shapes_root.glob("*/*/*.mp4"))[0]


@pytest.fixture
def bench(shapes_root: Path, tmp_path: Path) -> Workbench:
    return Workbench(Sessions(tmp_path / "sessions", 10**9), Shelf(shapes_root))


@pytest.fixture
def pointed(video: Path, shapes_root: Path) -> PointedClip:
    """One tracked object with a caption that holds markup, and one that is only drawn."""
    clip = PointedClip(video.relative_to(shapes_root).as_posix(), (192, 144), 24)
    clip = replace(clip, next_name=SCRIPT).with_drawn(
        [DrawnBox(None, (10.5, 20, 30, 41)), DrawnBox(None, (90, 50, 20, 20))], 1
    )
    boxes_px = np.tile([10.5, 20, 30, 41], (24, 1)) + np.arange(24)[:, None] * [2.25, 1, 0, 0]
    first = clip.objects[0].with_track(boxes_px, np.linspace(1, 0.4, 24), (0, 24)).absent_from(20)
    return clip.with_object(first.with_track(first.boxes_px, first.confidence, (0, 24)).with_captions([SCRIPT, "b"]))


def test_a_saved_record_is_opened_as_it_was(
    bench: Workbench, pointed: PointedClip, shapes_root: Path, tmp_path: Path
) -> None:
    one = pointed.objects[0]
    paths = write_files(tmp_path / "files", pointed, one)
    assert [path.name for path in paths] == ["object_bboxes.txt", "object_bboxes.npy", "caption.txt", "records.jsonl"]
    in_text = parse_box_text(paths[0])
    assert np.abs(in_text - one.boxes_px).max() < 0.051
    assert np.array_equal(load_boxes(paths[1]), thousandths_from_pixels(one.boxes_px, 192, 144))
    record = json.loads(paths[3].read_text())
    assert record["video"] == pointed.clip and record["conversations"][1]["value"] == SCRIPT
    opened = bench.open_record(bench.sessions.begin(""), paths[3], 1)
    assert (opened.clip, opened.frame, len(opened.objects)) == (pointed.clip, 0, 1)
    again = opened.objects[0]
    assert (again.name, again.caption, again.is_tracked, again.is_caption_current) == (SCRIPT, SCRIPT, True, True)
    assert np.allclose(again.boxes_px, in_text, atol=1e-9)
    assert again.boxes_px.any(axis=1).sum() == 20


def test_a_record_by_the_second_and_in_fractions_is_opened_too(
    bench: Workbench, pointed: PointedClip, tmp_path: Path
) -> None:
    boxes = {"1.0": [0.25, 0.5, 0.5, 0.75]}
    record = {
        "id": 1,
        "video": pointed.clip,
        "conversations": [{"from": "human", "value": "<video>\nWhat?"}],
        "tracks": [{"name": "cup", "boxes": boxes, "by": "second", "unit": "unit", "order": "xyxy"}],
    }
    (tmp_path / "r.jsonl").write_text("\n" + json.dumps(record))
    (one,) = bench.open_record(bench.sessions.begin(""), tmp_path / "r.jsonl", 1).objects
    assert one.given == {6: (48, 72, 48, 36)} and not one.caption


def test_a_record_opens_the_clip_of_its_path_before_one_of_its_name(shapes_root: Path, tmp_path: Path) -> None:
    for name in ("clip.mp4", "below/clip.mp4"):
        (tmp_path / "clips" / name).parent.mkdir(exist_ok=True)
        shutil.copy(sorted(shapes_root.glob("*/*/*.mp4"))[0], tmp_path / "clips" / name)
    bench = Workbench(Sessions(tmp_path / "sessions", 10**7), Shelf(tmp_path / "clips"))
    tracks = [{"name": "a", "boxes": [[0, 0, 9, 9]] * 24, "unit": "pixels", "order": "xywh"}]
    asked = [{"from": "human", "value": "<video>\nWhat?"}]
    for name in ("below/clip.mp4", "clip.mp4"):
        record = {"id": 1, "video": name, "conversations": asked, "tracks": tracks}
        (tmp_path / "r.jsonl").write_text(json.dumps(record))
        assert bench.open_record(bench.sessions.begin(""), tmp_path / "r.jsonl", 1).clip == name


def test_records_are_opened_beside_what_is_there(bench: Workbench, pointed: PointedClip, tmp_path: Path) -> None:
    """Two objects of a clip come back one after the other, and one that is there already is not there twice."""

    def record(name: str, left: int) -> dict[str, Any]:
        tracks = [{"name": name, "boxes": [[left, 5, 20, 30]] * 24, "unit": "pixels", "order": "xywh"}]
        turns = [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": f"it is a {name}"}]
        return {"id": name, "video": pointed.clip, "conversations": turns, "tracks": tracks}

    lines = [record("cup", 5), record("plate", 60)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    session = bench.sessions.begin("")
    for line in (1, 2, 1):
        opened = bench.open_record(session, tmp_path / "r.jsonl", line)
    assert [(one.number, one.name, one.caption) for one in opened.objects] == [
        (1, "cup", "it is a cup"),
        (2, "plate", "it is a plate"),
    ]
    with bench.at_work(session) as work:
        work.keep(work.pointed.without_object(2).without_object(1))
    assert bench.open_record(session, tmp_path / "r.jsonl", 2).objects[0].number == 3, "a number means one object"


@pytest.mark.parametrize(
    ("record", "line", "said"),
    [
        ({}, 2, "has 1 records, there is no number 2"),
        ({"video": "../../etc/passwd.mp4"}, 1, "leaves the dataset's root"),
        ({"video": "nowhere.mp4"}, 1, "its video nowhere.mp4 is not here"),
        ({"tracks": [{"name": "a", "boxes": [[0, 0, 0, 0]] * 24, "unit": "pixels", "order": "xywh"}]}, 1, "no track"),
        ({"tracks": [{"name": "a", "boxes": [[0, 0, 9, 9]] * 23, "unit": "pixels", "order": "xywh"}]}, 1, "23 boxes"),
    ],
)
def test_a_record_that_cannot_be_opened_is_told(
    bench: Workbench, pointed: PointedClip, tmp_path: Path, record: dict[str, Any], line: int, said: str
) -> None:
    whole = {"id": 1, "video": pointed.clip, "conversations": [{"from": "human", "value": "<video>\nWhat?"}], **record}
    (tmp_path / "r.jsonl").write_text(json.dumps(whole))
    with pytest.raises(UserError, match=said):
        bench.open_record(bench.sessions.begin(""), tmp_path / "r.jsonl", line)


def test_an_object_that_is_not_tracked_is_not_saved(pointed: PointedClip, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="track it first"):
        write_files(tmp_path, pointed, pointed.objects[1])
    assert list(tmp_path.iterdir()) == []


def test_texts_of_files_users_and_models_are_shown_and_not_run(pointed: PointedClip) -> None:
    shown = objects_table(pointed) + confidence_plot(pointed) + comparison(SCRIPT, [(SCRIPT, "a <script> b")])
    assert "<script" not in shown and "<img" not in shown
    assert "&lt;script&gt;" in shown


def test_the_comparison_marks_the_words_that_changed() -> None:
    shown = comparison(
        "a red cup moves left", [("no box", "a blue cup moves"), ("box of 2 cup", "a red cup moves left")]
    )
    assert "a <mark>blue</mark> cup moves<" in shown
    assert shown.count("another caption") == shown.count("the same") == 1


def test_boxes_are_drawn_and_read_at_the_pictures_size(pointed: PointedClip) -> None:
    scale = 640 / 192
    (first, _) = boxes_to_draw(pointed)
    assert (first["xmin"], first["ymax"]) == pytest.approx((10.5 * scale, 61 * scale))
    read = drawn_boxes(pointed, [{**first, "xmin": 50 * scale, "xmax": 40 * scale}, {**first, "label": "who"}])
    assert (read[0].number, read[1].number) == (1, None)
    assert read[0].box_px == pytest.approx((40, 20, 10, 41))


class Sure:
    """A tracker that finds the box where it was given."""

    def __init__(self, num_objects: int) -> None:
        self.boxes_px = np.zeros((num_objects, 4))

    def step(self, frame: Frame, given: Mapping[int, BoxPx]) -> Sighting:
        for number, box in given.items():
            self.boxes_px[number] = box
        return Sighting(self.boxes_px.copy(), np.ones(len(self.boxes_px)))


def ended(steps: Generator[Progress, None, Any]) -> tuple[list[Progress], Any]:
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value


def test_tracks_and_their_film_come_with_their_progress(video: Path, pointed: PointedClip, tmp_path: Path) -> None:
    footage, settings = Footage(video), TrackerSettings("sure", Sure, 0.5)
    given = [GivenObject("a", {5: np.array([10.0, 20, 30, 40])})]
    seen, followed = ended(tracked(footage, given, settings, threading.Event()))
    assert (followed.boxes_px[0] == [10, 20, 30, 40]).all()
    assert seen[-1].total == 19 + 6 and 0 <= seen[0].done <= seen[-1].done <= 25
    ended(filmed(tmp_path / "film.mp4", footage, pointed.objects, threading.Event()))
    with av.open(str(tmp_path / "film.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 24 and frames[0].shape == (360, 480, 3)
    left = int(pointed.objects[0].boxes_px[3, 0] * 2.5)
    assert np.abs(frames[3][80:140, left].astype(int) - (255, 176, 0)).mean() < 60


def test_what_is_stopped_leaves_nothing(video: Path, pointed: PointedClip, tmp_path: Path) -> None:
    footage, stop = Footage(video), threading.Event()
    stop.set()
    given = [GivenObject("a", {5: np.array([10.0, 20, 30, 40])})]
    with pytest.raises(Stopped):
        ended(tracked(footage, given, TrackerSettings("sure", Sure, 0.5), stop))
    with pytest.raises(Stopped):
        ended(filmed(tmp_path / "film.mp4", footage, pointed.objects, stop))
    assert list(tmp_path.iterdir()) == []
