"""The lists of Artemis' stages: chats with what they show in front, questions drawn by seed, and what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from internvl_chat.__main__ import main
from internvl_chat.data.prompts.object_questions import FIXED_QUESTION, QUESTION_FORMS, TRACK_NOTES, drawn_question
from tests.data.converters.miniatures import dump, videoref


def asked(*turns: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(turns)]


def converted(source: Path, root: Path, *flags: object) -> list[dict[str, Any]]:
    out = root / "out.jsonl"
    argv = ["convert-data", "--from", "artemis", source, "--root", root, "--out", out, *flags]
    assert main([str(word) for word in argv]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_chats_of_the_first_two_stages(tmp_path: Path) -> None:
    (tmp_path / "valley").mkdir()
    for name in ("a.mp4", "b.safetensors", "c.mp4", "c.safetensors"):
        (tmp_path / "valley" / name).touch()
    entries = [
        {"id": "p", "image": "a.jpg", "conversations": asked("What is it?\n<image>", "A cup.")},
        {"image": ["a.jpg", "b.jpg"], "conversations": asked("Is <image> like <image>?", "No.", "And why?", "So.")},
        {"id": 7, "video": "valley/a.mp4", "conversations": asked("Tell\n<video>", "He runs.")},
        {"id": 8, "video": "valley/b.mp4", "video_clip": "valley/b.pkl", "conversations": asked("Tell", "She sits.")},
        {
            "id": 9,
            "video": "valley/c.mp4",
            "video_clip": "valley/c.pkl",
            "conversations": asked("Tell", "It."),
        },
        {"id": 10, "conversations": asked("Two and two?", "Four.")},
    ]
    records = converted(dump(tmp_path / "tune.json", entries), tmp_path)
    shown = [{key: value for key, value in record.items() if key not in ("id", "conversations")} for record in records]
    assert shown == [
        {"image": "a.jpg"},
        {"image": ["a.jpg", "b.jpg"]},
        {"video": "valley/a.mp4"},
        {"video": "valley/b.safetensors"},
        {"video": "valley/c.mp4", "features": "valley/c.safetensors"},
        {},
    ]
    assert [record["id"] for record in records] == ["p", "tune-1", 7, 8, 9, 10]
    assert [record["conversations"][0]["value"] for record in records] == [
        "<image>\nWhat is it?",
        "<image>\n<image>\nIs  like ?",
        "<video>\nTell",
        "<video>\nTell",
        "<video>\nTell",
        "Two and two?",
    ]


def test_objects_are_asked_about_in_one_form_or_in_drawn_ones(tmp_path: Path) -> None:
    source = videoref(tmp_path)
    entry, other = json.loads(source.read_text())
    dump(source, [entry, *[{key: value for key, value in other.items() if key != "question"}] * 30])

    def questions(*flags: object) -> list[str]:
        return [r["conversations"][0]["value"].removeprefix("<video>\n") for r in converted(source, tmp_path, *flags)]

    assert set(questions()) == {FIXED_QUESTION}
    drawn = questions("--question_seed", 3)
    assert drawn == questions("--question_seed", 3) != questions("--question_seed", 4)
    assert drawn[0] in [f"What is the <bbox> doing? {note}" for note in TRACK_NOTES]
    assert drawn[1] == drawn_question("nlp-1-0", 3)
    assert len(set(drawn)) > 15
    own = tmp_path / "own.txt"
    own.write_text("Where does <bbox> go?\n\nWhy is <bbox> here?\n")
    forms = {
        text.removesuffix(note).strip()
        for text in questions("--question_seed", 3, "--questions", own)[1:]
        for note in TRACK_NOTES
        if text.endswith(note)
    }
    assert forms == {"Where does <bbox> go?", "Why is <bbox> here?"}


def test_there_are_as_many_forms_as_the_original_has_and_each_mentions_its_object() -> None:
    assert len(set(QUESTION_FORMS)) == 24 and len(set(TRACK_NOTES)) == 3
    assert all(form.count("<bbox>") == 1 for form in QUESTION_FORMS)


@pytest.mark.parametrize(
    ("change", "flags", "said"),
    [
        ({"track_list": [[1, 2, 30, 40]]}, [], "nlp.json:2: 'track_list' has 1 boxes for 3 names of 'frame_id'"),
        ({"key_frame_id": "00031.jpg"}, [], "nlp.json:2: {root}/HC-STVG/frames/x has no frame '00031.jpg'"),
        ({"track_list": [[], [], []], "key_frame_box": []}, [], "nlp.json:2: 'object' has no box on any frame"),
        ({"conversations": [], "track_list": None}, [], "'track_list' is None: expected a list"),
        ({"caption": 3}, [], "'caption' is 3: expected a text"),
        ({}, ["--questions", "own.txt"], "--questions: nothing is drawn from it without a seed"),
        ({}, ["--question_seed", "1", "--questions", "own.txt"], "own.txt: 'Where?': expected <bbox> once"),
    ],
)
def test_what_is_wrong_is_one_message(
    change: dict[str, Any], flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = videoref(tmp_path)
    entry = json.loads(source.read_text())[0]
    dump(source, [{**entry, **change}])
    (tmp_path / "own.txt").write_text("Where?\n")
    flags = [str(tmp_path / word) if word.endswith(".txt") else word for word in flags]
    argv = ["convert-data", "--from", "artemis", str(source), "--root", str(tmp_path), "--out", str(tmp_path / "o")]
    assert main([*argv, *flags]) == 1
    told = capsys.readouterr().err
    assert told.count("error: ") == 1 and said.format(root=tmp_path) in told


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"image": "a.jpg", "video": "a.mp4"}, "shows images and a video: expected one of the two"),
        ({"video": "a.mp4", "video_clip": "a.pkl"}, "neither its video 'a.mp4' nor features of it are there"),
        ({"image": "/elsewhere/a.jpg"}, "does not lie under the root"),
    ],
)
def test_chats_that_cannot_be_shown(
    entry: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = dump(tmp_path / "tune.json", [{**entry, "conversations": asked("What?", "x")}])
    argv = ["convert-data", "--from", "artemis", str(source), "--root", str(tmp_path), "--out", str(tmp_path / "o")]
    assert main(argv) == 1
    assert said in capsys.readouterr().err
