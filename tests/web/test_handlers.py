"""What the page does without a browser: a pass that is stopped, and an edit that comes while one runs."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from internvl_chat.trackers.lists import TrackerSettings
from internvl_chat.trackers.protocol import BoxPx, Frame, Sighting
from internvl_chat.web.pointing import DrawnBox
from internvl_chat.web.sessions import Sessions
from internvl_chat.web.shelf import Shelf
from internvl_chat.web.workbench import Workbench

pytest.importorskip("gradio_image_annotation", reason="requirements/web.txt is not installed")
gr = pytest.importorskip("gradio")


class Waiting:
    """A tracker that waits, on its fourth frame, until it may go on."""

    def __init__(self, gate: threading.Event, num_objects: int) -> None:
        self.gate, self.boxes_px, self.steps = gate, np.zeros((num_objects, 4)), 0

    def step(self, frame: Frame, given: Mapping[int, BoxPx]) -> Sighting:
        self.steps += 1
        if self.steps == 4:
            self.gate.wait(20)
        for number, box in given.items():
            self.boxes_px[number] = box
        return Sighting(self.boxes_px.copy(), np.ones(len(self.boxes_px)))


@pytest.fixture
def gate() -> threading.Event:
    return threading.Event()


@pytest.fixture
def handlers(shapes_root: Path, tmp_path: Path, gate: threading.Event) -> Any:
    from internvl_chat.web.handlers import Handlers

    tracker = TrackerSettings("waiting", lambda count: Waiting(gate, count), 0.5)
    captioner: Any = None
    return Handlers(captioner, tracker, Workbench(Sessions(tmp_path, 10**9), Shelf(shapes_root)))


@pytest.fixture
def session(handlers: Any) -> str:
    """A session with two objects drawn on the first frame."""
    name = str(handlers.open_page("")["session"])
    with handlers.bench.at_work(name) as work:
        drawn = [DrawnBox(None, (5, 6, 40, 30)), DrawnBox(None, (90, 70, 20, 25))]
        work.keep(work.pointed.with_drawn(drawn, 1))
    return name


def shown_picture(shown: dict[str, Any]) -> str:
    return str(shown["annotator"]["value"]["image"])


def test_boxes_of_another_clip_or_frame_are_not_this_ones(handlers: Any) -> None:
    """The drawing component says what changed when the next picture is shown already."""
    opened = handlers.open_page("")
    session, first = str(opened["session"]), shown_picture(opened)
    box = {"xmin": 20, "ymin": 30, "xmax": 120, "ymax": 140, "label": ""}
    drawn = handlers.draw(session, {"image": first, "boxes": [box]})
    assert len(drawn["annotator"]["value"]["boxes"]) == 1
    late = {"image": first, "boxes": [{**box, "label": "1 object"}]}
    other = next(name for name in handlers.bench.shelf.names if name != opened["clip"]["value"])
    second = handlers.choose_clip(session, other)
    assert handlers.draw(session, late) == {}
    with handlers.bench.at_work(session) as work:
        assert work.pointed.clip == other and not work.pointed.objects
    # Of another frame of the clip, they are that frame's.
    later = handlers.go_to(session, 5)
    handlers.draw(session, {"image": shown_picture(second), "boxes": [box]})
    with handlers.bench.at_work(session) as work:
        (one,) = work.pointed.objects
        assert list(one.given) == [0] and shown_picture(later) != shown_picture(second)


def test_a_caption_on_its_way_finds_no_other_object(
    handlers: Any, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from internvl_chat.web import handlers as page

    def meanwhile(captioner: Any, path: Path, start: Any, objects: Any, **_: Any) -> Any:
        with handlers.bench.at_work(session) as work:
            gone = work.pointed.without_object(1).without_object(2)
            work.keep(gone.with_drawn([DrawnBox(None, (30, 40, 50, 40))], 1))
        return start.with_object(start.objects[0].with_captions(["a red cup"]))

    monkeypatch.setattr(page, "with_captions", meanwhile)
    handlers.caption_all(session)
    with handlers.bench.at_work(session) as work:
        (one,) = work.pointed.objects
        assert one.number == 3 and not one.caption


def tracked(handlers: Any, session: str) -> list[bool]:
    with handlers.bench.at_work(session) as work:
        return [one.is_tracked for one in work.pointed.objects]


def test_a_pass_that_is_stopped_changes_nothing(handlers: Any, session: str, gate: threading.Event) -> None:
    shown = handlers.track(session, None)
    assert next(shown) == {"progress": "Tracking..."}
    assert next(shown)["progress"].startswith("Tracking: ")
    handlers.stop(session)
    gate.set()
    assert list(shown)[-1] == {"progress": "Stopped."}
    assert tracked(handlers, session) == [False, False]


def test_an_object_that_is_changed_while_it_is_tracked_is_left_as_it_is(
    handlers: Any, session: str, gate: threading.Event
) -> None:
    shown = handlers.track(session, None)
    next(shown)
    next(shown)
    with handlers.bench.at_work(session) as work:
        work.keep(work.pointed.with_object(work.pointed.objects[1].with_box(9, (1, 2, 30, 30))))
    gate.set()
    assert Path(list(shown)[-1]["film"]).is_file()
    assert tracked(handlers, session) == [True, False]
    with handlers.bench.at_work(session) as work:
        assert (work.pointed.objects[0].boxes_px == [5, 6, 40, 30]).all()


def test_a_page_that_is_left_ends_its_pass(handlers: Any, session: str, gate: threading.Event) -> None:
    shown = handlers.track(session, None)
    next(shown)
    next(shown)
    threading.Timer(0.3, gate.set).start()
    shown.close()
    assert tracked(handlers, session) == [False, False]


def test_only_one_pass_runs_at_a_time(handlers: Any, session: str, gate: threading.Event) -> None:
    gate.set()
    shown = handlers.track(session, None)
    next(shown)
    with pytest.raises(gr.Error, match="wait, or stop it first"):
        next(handlers.track(session, None))
    list(shown)
    assert tracked(handlers, session) == [True, True]


def test_a_name_and_a_caption_go_to_the_object_that_they_were_written_for(handlers: Any, session: str) -> None:
    """Another object is chosen while they are on their way."""
    shown = handlers.choose_object(session, 1)
    assert (shown["named"], shown["captioned"]) == (1, 1)
    handlers.choose_object(session, 2)
    handlers.write_caption(session, " a cup moves ", 1)
    handlers.rename(session, "cup", 1)
    assert handlers.rename(session, "object", 2) == handlers.write_caption(session, "a cup moves", 1) == {}
    with handlers.bench.at_work(session) as work:
        first, second = work.pointed.objects
    assert (first.name, first.caption, first.is_caption_current) == ("cup", "a cup moves", False)
    assert (second.name, second.caption) == ("object", "")
    with pytest.raises(gr.Error, match="would steer the prompt"):
        handlers.rename(session, "<image>", 1)


def test_a_message_shows_what_it_quotes_as_text(handlers: Any, session: str) -> None:
    with pytest.raises(gr.Error) as raised:
        handlers.choose_clip(session, "<img src=x>")
    assert "<img" not in str(raised.value) and "&lt;img src=x&gt;" in str(raised.value)


def test_a_clip_that_is_gone_is_told_and_another_can_be_chosen(handlers: Any, session: str, tmp_path: Path) -> None:
    handlers.bench.shelf = Shelf(None)
    shown = handlers.open_page(session)
    assert "not there any more" in shown["progress"]
    assert shown["session"] == session and shown["clip"]["choices"] == []
