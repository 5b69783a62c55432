"""A few hundred broken files; `make fuzz` runs ten thousand."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from internvl_chat.choices import CONVERTERS
from internvl_chat.data.records import box_files as prepare
from tests.data.converters.sound import SOUND_SOURCES
from tests.fuzzing.garden import CLIP, FuzzFailure, Garden
from tests.fuzzing.runs import run_bytes, run_drawn, run_good
from tests.helpers import run_python

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def garden(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Garden]:
    logging.disable(logging.CRITICAL)
    yield Garden(tmp_path_factory.mktemp("garden"))
    logging.disable(logging.NOTSET)


def test_files_with_broken_bytes_are_read_or_refused_by_name(garden: Garden) -> None:
    before = sum(garden.counts.values())
    run_bytes(garden, first=1_000_000, count=240)
    assert sum(garden.counts.values()) == before + 240
    assert min(garden.counts.values()) > 0


def test_documents_that_are_nearly_right_are_read_or_refused_by_name(garden: Garden) -> None:
    before = sum(garden.counts.values())
    run_drawn(garden, seed=1, count=20)
    assert sum(garden.counts.values()) > before + 60


# What earlier runs found, in the place it was found.
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lines.jsonl", b'{"id": 1, "image": "still.jpg", "conversations": [{"from": "gpt", "value": "no question"}]}'),
        ("lines.jsonl", b'{"id": 1, "conversations": [0]}'),
        ("lines.jsonl", b'{"id": "' + b"[" * 9000 + b'", "conversations": ' + b"[" * 9000),
        ("lines.jsonl", b'{"id": ' + b"9" * 9000 + b"}"),
        ("list.json", b'[{"id": "\\ud800", "conversations": [{"role": "user", "content": "\\ud800"}]}]'),
        ("meta.json", b'{"\\ud800": {"root": ".", "annotation": "\\ud800"}}'),
        (CLIP.replace("cup-1.mp4", "object_bboxes.npy"), b"\x93NUMPY\x01\x00\x10\x00{'shape': ((((((\n"),
        (CLIP.replace("cup-1.mp4", "object_bboxes.npy"), b"PK\x03\x04"),
    ],
)
def test_what_was_found_stays_found(garden: Garden, name: str, content: bytes) -> None:
    refused = garden.counts["refused"]
    garden.try_out(name, content)
    assert garden.counts["refused"] == refused + 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda path: {}["key"], "KeyError"),
        (lambda path: (path.parents[4] / "stray").write_text("x"), "outside its folder"),
        (lambda path: os.open(path, os.O_RDONLY), "files open"),
        (lambda path: (_ for _ in ()).throw(prepare.UserError("broken")), "does not say where"),
    ],
    ids=["another exception", "stray file", "open file", "no name"],
)
def test_each_kind_of_failure_would_be_seen(
    garden: Garden, fault: object, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.fuzzing.garden.write_boxes_beside", lambda path, overwrite: fault(path))  # type: ignore[operator]
    with pytest.raises(FuzzFailure, match=said):
        garden.try_out(CLIP, garden.original(CLIP))


def test_a_reader_that_hangs_would_end_the_run(garden: Garden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzzing.garden.LONGEST_CPU_S", 0.2)
    monkeypatch.setattr(
        "tests.fuzzing.garden.write_boxes_beside", lambda path, overwrite: all(iter(lambda: True, None))
    )
    child = multiprocessing.get_context("fork").Process(target=garden.try_out, args=(CLIP, garden.original(CLIP)))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGPROF


def test_every_converter_is_fuzzed_without_being_named(garden: Garden) -> None:
    assert set(SOUND_SOURCES) == set(CONVERTERS)
    broken = {Path(name).parts[1] for name in garden.mutable if name.startswith("sources/")}
    assert broken == set(CONVERTERS)
    source = "sources/mot/MOT-02/gt/gt.txt"
    refused = garden.counts["refused"]
    garden.try_out(source, garden.original(source) + b"one,2,3\n")
    assert garden.counts["refused"] == refused + 1


def test_a_converter_that_crashes_would_be_seen(garden: Garden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("internvl_chat.data.converters.mot._objects", lambda *_: {}["key"])
    source = "sources/mot/MOT-02/gt/gt.txt"
    with pytest.raises(FuzzFailure, match=f"{source}: KeyError"):
        garden.try_out(source, garden.original(source))


def test_boxes_of_good_records_lie_on_their_objects(garden: Garden) -> None:
    run_good(garden, 0, 25)


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("display.Display.shown_boxes", lambda self, corners: corners[:, [1, 0, 3, 2]]),
        ("display.Display.shown", lambda self, picture: picture),
        ("timeline.Timeline.seconds_of", lambda self, indices: indices / 3.0),
    ],
)
def test_a_box_off_its_object_would_be_seen(
    place: str, fault: object, garden: Garden, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"internvl_chat.data.media.{place}", fault)
    with pytest.raises(FuzzFailure, match="good record"):
        run_good(garden, 0, 60)


def test_the_long_run_prints_its_count() -> None:
    result = run_python("-m", "tests.fuzzing", "--count", "20", "--workers", "1")
    assert result.returncode == 0, result.stderr
    assert re.match(r"1[39] mutated inputs of \d+ files: .*; 1 good records, all boxes on their objects", result.stdout)
