"""Objects followed through synthetic videos by OpenCV's trackers, and by one that is made up."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from internvl_chat.__main__ import main
from internvl_chat.contracts import TrackRows, UserError
from internvl_chat.data.checking.check import Budget, check_meta
from internvl_chat.trackers.choosing import choose_tracker
from internvl_chat.trackers.following import GivenObject, Way, follow, given_of_track, num_steps
from internvl_chat.trackers.frames import Footage
from internvl_chat.trackers.lists import TrackerSettings, complete_records, videos_to_track
from internvl_chat.trackers.protocol import BoxPx, Frame, Sighting
from tests.data.media.films import write_film
from tests.trackers.moving import NUM_FRAMES, boxes_px, frames, ious, write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("moving") / "clip.mp4")


class Recorder:
    """A tracker that moves every box a pixel to the right a step, and notes what it was handed."""

    def __init__(self, num_objects: int) -> None:
        self.boxes_px, self.seen = np.zeros((num_objects, 4)), np.zeros(num_objects, dtype=bool)
        self.steps: list[tuple[int, list[int]]] = []

    def step(self, frame: Frame, given: Mapping[int, BoxPx]) -> Sighting:
        self.steps.append((int(frame[0, 0, 0]), sorted(given)))
        self.boxes_px[self.seen, 0] += 1
        for number, box in given.items():
            self.boxes_px[number], self.seen[number] = box, True
        return Sighting(self.boxes_px * self.seen[:, None], self.seen * 0.8)


@pytest.fixture
def numbered(tmp_path: Path) -> Footage:
    """A folder of nine frames, each as bright as its number."""
    from PIL import Image

    for number in range(9):
        Image.fromarray(np.full((40, 50, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    return Footage(tmp_path)


def given(name: str, **boxes: list[float]) -> GivenObject:
    return GivenObject(name, {int(key[1:]): np.array(box, dtype=float) for key, box in boxes.items()})


def test_each_object_goes_both_ways_from_where_it_is_first_given(
    numbered: Footage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("internvl_chat.trackers.frames.MAX_RUN_FRAMES", 2)
    made: list[Recorder] = []

    def make(num_objects: int) -> Recorder:
        made.append(Recorder(num_objects))
        return made[-1]

    calls: list[int] = []
    objects = [given("a", f2=[10, 5, 8, 9]), given("b", f5=[3, 4, 7, 6], f7=[20, 4, 7, 6])]
    followed = follow(numbered, objects, make, 0.5, lambda: calls.append(1))
    assert made[0].steps == [(2, [0]), (3, []), (4, []), (5, [1]), (6, []), (7, [1]), (8, [])]
    assert made[1].steps == [(5, [1]), (4, []), (3, []), (2, [0]), (1, []), (0, [])]
    assert followed.boxes_px[0, :, 0].tolist() == [12, 11, 10, 11, 12, 13, 14, 15, 16]
    assert followed.boxes_px[1, :, 0].tolist() == [8, 7, 6, 5, 4, 3, 4, 20, 21]
    assert len(calls) == num_steps(numbered, objects) == 13


@pytest.mark.parametrize(("way", "steps"), [("forwards", 5), ("backwards", 5)])
def test_one_way_leaves_the_other_side_alone(numbered: Footage, way: Way, steps: int) -> None:
    calls: list[int] = []
    one = given("a", f4=[10, 5, 8, 9])
    both = follow(numbered, [one], Recorder, 0.5)
    side = follow(numbered, [one], Recorder, 0.5, lambda: calls.append(1), [way])
    kept = slice(4, 9) if way == "forwards" else slice(0, 5)
    expected = np.zeros_like(both.boxes_px)
    expected[:, kept] = both.boxes_px[:, kept]
    assert np.array_equal(side.boxes_px, expected)
    assert side.confidence[0].astype(bool).tolist() == expected[0].any(axis=1).tolist()
    assert len(calls) == num_steps(numbered, [one], [way]) == steps


def test_what_is_given_as_absent_stays_so_until_the_next_box(numbered: Footage) -> None:
    one = given("a", f0=[0, 0, 0, 0], f3=[10, 5, 8, 9], f5=[0, 0, 0, 0], f7=[11, 5, 8, 9])
    followed = follow(numbered, [one], Recorder, 0.5)
    assert followed.boxes_px[0].any(axis=1).tolist() == [False, True, True, True, True, False, False, True, True]


def test_below_the_least_confidence_an_object_is_absent_and_its_confidence_kept(numbered: Footage) -> None:
    followed = follow(numbered, [given("a", f0=[10, 5, 8, 9])], Recorder, 0.9)
    assert not followed.boxes_px.any()
    assert (followed.confidence == 0.8).all()


def test_boxes_are_cut_at_the_edge_of_the_picture(numbered: Footage) -> None:
    followed = follow(numbered, [given("a", f0=[44, 35, 4, 5])], Recorder, 0.5)
    assert followed.boxes_px[0, 4].tolist() == [48, 35, 2, 5]
    assert not followed.boxes_px[0, 6:].any()


# MIL draws its patches at random, from a state that no seed reaches: of 25 runs the worst went back to an IoU of 0.28.
@pytest.mark.parametrize(
    ("name", "least", "least_back", "share_sure"), [("csrt", 0.7, 0.7, 1.0), ("mil", 0.5, 0.15, 0.8)]
)
def test_two_objects_are_followed_and_the_way_back_ends_at_the_start(
    video: Path, name: str, least: float, least_back: float, share_sure: float
) -> None:
    pytest.importorskip("cv2", reason="requirements/track.txt is not installed")
    footage, settings = Footage(video), choose_tracker(name)
    truth = np.stack([boxes_px(0), boxes_px(1)])
    objects = [GivenObject(str(k), {0: truth[k, 0]}) for k in range(2)]
    followed = follow(footage, objects, settings.make, settings.min_confidence)
    for k in range(2):
        assert ious(followed.boxes_px[k], truth[k]).mean() > least
        assert (followed.confidence[k] > settings.min_confidence).mean() >= share_sure
    last = NUM_FRAMES - 1
    back = [GivenObject(str(k), {last: followed.boxes_px[k, last]}) for k in range(2)]
    returned = follow(footage, back, settings.make, settings.min_confidence)
    for k in range(2):
        assert ious(returned.boxes_px[k, :1], truth[k, :1])[0] > least_back


def test_an_object_that_vanishes_is_absent(tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="requirements/track.txt is not installed")
    footage, settings = Footage(write_video(tmp_path / "gone.mp4", hidden_from=12)), choose_tracker("csrt")
    followed = follow(footage, [GivenObject("a", {0: boxes_px(0)[0]})], settings.make, settings.min_confidence)
    is_there = followed.boxes_px[0].any(axis=1)
    assert is_there[:12].all() and not is_there[12:].any()
    assert followed.confidence[0, :12].min() > followed.confidence[0, 12:].max()


@pytest.mark.parametrize(
    ("name", "box", "said"), [("mil", [5, 5, 4, 40], "too small for mil"), ("csrt", [5, 5, 1, 9], "too small for csrt")]
)
def test_a_box_that_opencv_would_hang_or_fail_on_is_refused(video: Path, name: str, box: list, said: str) -> None:
    pytest.importorskip("cv2", reason="requirements/track.txt is not installed")
    with pytest.raises(UserError, match=said):
        choose_tracker(name).make(1).step(frames()[0], {0: np.array(box, dtype=float)})


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            TrackRows("a", np.array([22.0]), np.array([[1.0, 2, 3, 4]]), in_pixels=True),
            "frame 22, the video has 0 to 21",
        ),
        (
            TrackRows("a", np.array([0.0]), np.array([[500.0, 2, 530, 4]]), in_pixels=True),
            "frame 0 lies outside 160 x",
        ),
        (TrackRows("a", np.array([0.0]), np.ones((1, 4)), in_pixels=True, size_px=(9, 9)), "say 9 x 9, the file is"),
        (TrackRows("a", np.array([0.0]), np.zeros((1, 4)), in_pixels=True), "no box with area"),
        (
            TrackRows("a", np.array([0.0, 9.0]), np.array([[1.0, 2, 30, 40], [160, 2, 190, 40]]), in_pixels=True),
            "box on frame 9 lies outside",
        ),
        (TrackRows("a", np.array([99.0]), np.array([[0.1, 0.1, 0.4, 0.4]]), "second"), "at second 99, when no frame"),
    ],
)
def test_what_cannot_be_followed_is_refused(video: Path, rows: TrackRows, said: str) -> None:
    with pytest.raises(UserError, match=said):
        given_of_track(rows, Footage(video))


def test_boxes_are_placed_as_everywhere_else(tmp_path: Path) -> None:
    """In the stored picture of a film that is turned, and at the second at which a frame is shown."""
    path = tmp_path / "uneven.mp4"
    write_film(path, [*range(0, 600, 60), *range(600, 3600, 600)])
    by_second = TrackRows("a", np.array([3.0]), np.array([[2.0, 3, 8, 9]]), "second", in_pixels=True)
    assert list(given_of_track(by_second, Footage(path)).boxes_px) == [12]
    turned = tmp_path / "turned.mp4"
    write_film(turned, [0, 60, 120], turn=(180, False, False))
    stored = TrackRows("a", np.zeros(1), np.array([[2.0, 3, 8, 9]]), in_pixels=True, in_stored=True)
    footage = Footage(turned)
    width, height = footage.size_px
    assert given_of_track(stored, footage).boxes_px[0] == pytest.approx([width - 8, height - 9, 6, 6])


def test_rows_by_second_and_in_fractions_become_boxes_on_frames(video: Path) -> None:
    corners = np.array([[0.1, 0.2, 0.4, 0.6], [0, 0, 0, 0], [-1, 0.5, 0.5, 2]])
    one = given_of_track(
        TrackRows("a", np.array([0.0, 0.2, 0.84]), corners, "second", absent=frozenset({20})), Footage(video)
    )
    assert {at: box.tolist() for at, box in one.boxes_px.items()} == {
        0: pytest.approx([16, 24, 48, 48]),
        5: [0, 0, 0, 0],
        20: [0, 0, 0, 0],
        21: pytest.approx([0, 60, 80, 60]),
    }


def list_of(folder: Path, video: Path, frame: int = 0) -> Path:
    """Two records of one video, the first in pixels without a question."""
    tracks = [{"name": "red", "boxes": {str(frame): boxes_px(0)[frame].tolist()}, "unit": "pixels", "order": "xywh"}]
    asked = [{"from": "human", "value": "<video>\nWhat moves?"}, {"from": "gpt", "value": "A square."}]
    unit = [{"name": "red", "boxes": {"3": [0.2, 0.3, 0.4, 0.6]}, "unit": "unit", "order": "xyxy"}]
    records = [
        {"id": 1, "video": video.name, "tracks": tracks, "conversations": asked},
        {"id": 2, "video": video.name, "tracks": unit},
    ]
    path = folder / "boxes.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_a_list_goes_on_where_it_stopped(video: Path, tmp_path: Path) -> None:
    source = list_of(tmp_path, video)
    made: list[int] = []

    def make(num_objects: int) -> Recorder:
        made.append(num_objects)
        return Recorder(num_objects)

    def run(settings: TrackerSettings, most: int) -> list[dict]:
        failures: list[str] = []
        records = complete_records(videos_to_track(source, video.parent), settings, tmp_path / "p.progress", failures)
        result = list(islice(records, most))
        assert failures == []
        return result

    settings = TrackerSettings("recorder", make, 0.5)
    first = run(settings, 1)
    assert len(made) == 1
    with (tmp_path / "p.progress").open("a") as file:
        file.write('{"key": "torn')
    both = run(settings, 9)
    assert (both[0], len(made)) == (first[0], 3)  # the second record goes backwards too
    assert run(settings, 9) == both and len(made) == 3
    assert len(run(TrackerSettings("another", make, 0.5), 9)) == 2 and len(made) == 6
    assert len(both[1]["tracks"][0]["boxes"]) == len(both[1]["track_confidence"][0]) == NUM_FRAMES


def test_the_command_tracks_a_list_that_check_finds_sound(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cv2", reason="requirements/track.txt is not installed")
    source = list_of(tmp_path, video)
    lines = source.read_text().splitlines()
    lines[1] = lines[1].replace(video.name, "missing.mp4")
    source.write_text("\n".join(lines))
    argv = ["track", "--records", source, "--root", video.parent, "--out", tmp_path / "out.jsonl"]
    assert main([str(arg) for arg in [*argv, "--meta_out", tmp_path / "meta.json"]]) == 1
    said = capsys.readouterr()
    assert f"{source}:2: " in said.err and "missing.mp4: cannot be read" in said.err
    assert said.out.endswith("out.jsonl: 1 of 2 records\n")
    assert main([str(arg) for arg in [*argv, "--json"]]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["written"], told["records"], len(told["failures"])) == (1, 2, 1)
    report = check_meta(tmp_path / "meta.json", Budget(), workers=1)
    assert report.findings == []


def test_the_command_writes_one_object_as_text_and_several_as_json(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cv2", reason="requirements/track.txt is not installed")
    boxes = [",".join(f"{v:g}" for v in boxes_px(k)[0]) for k in range(2)]
    text, picture = tmp_path / "object_bboxes.txt", tmp_path / "track.png"
    argv = ["track", video, "--box", boxes[0], "--out", text, "--picture", picture, "--num_frames", "5"]
    assert main([str(arg) for arg in argv]) == 0
    assert text.read_text().splitlines()[0] == boxes[0]
    confidence = (tmp_path / "object_bboxes.confidence.txt").read_text().split()
    assert len(confidence) == len(text.read_text().splitlines()) == NUM_FRAMES and confidence[0] == "1"
    assert picture.stat().st_size > 1000
    out = tmp_path / "tracks.json"
    named = ["--box", f"red@0:{boxes[0]}", "--box", "red@19:absent", "--box", f"blue:{boxes[1]}"]
    assert main(["track", str(video), *named, "--out", str(out)]) == 0
    tracks = json.loads(out.read_text())["tracks"]
    assert [track["name"] for track in tracks] == ["red", "blue"]
    assert [any(box) for box in tracks[0]["boxes"]] == [True] * 19 + [False] * 3
    assert "blue: seen on 22 of 22 frames" in capsys.readouterr().out
    assert main(["track", str(video), *named, "--out", str(out), "--json"]) == 0
    red, blue = json.loads(capsys.readouterr().out)["objects"]
    assert (red["name"], red["seen"], blue["seen"], blue["frames"]) == ("red", 19, 22, 22)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--out", "a.txt"], "give a video with --box, or --records"),
        (["v.mp4", "--out", "a.txt"], "say where the object is"),
        (["v.mp4", "--box", "1,2,3,4", "--out", "a.jsonl"], "are .txt or .json"),
        (["--records", "r.jsonl", "--box", "1,2,3,4", "--out", "a.jsonl"], "holds its own boxes"),
        (["v.mp4", "--box", "1,2,3,4", "--tracker", "nowhere", "--out", "a.txt"], "holds no model of transformers"),
    ],
)
def test_flags_that_do_not_go_together_are_told(
    argv: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["track", *argv]) == 1
    assert said in capsys.readouterr().err


def test_a_missing_opencv_is_told_with_the_file_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match="requirements/track.txt"):
        choose_tracker("csrt")
