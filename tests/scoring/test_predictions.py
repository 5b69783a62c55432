"""Files of predictions: one form is written, and whatever the commands or the challenge wrote is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from internvl_chat.contracts import UserError
from internvl_chat.scoring.predictions import (
    read_candidates,
    read_facts,
    read_predictions,
    read_texts,
    run_facts,
    write_facts,
    write_predictions,
)

SAID = {"dog-1": ["a dog runs", "a dog"], "7": ["a cup"], "clips/a.mp4": ["it\u2028falls"]}


def lines(path: Path, *content: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in content))
    return path


def test_what_is_written_is_read_again_by_file_and_by_folder(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    assert write_predictions(path, SAID) == 3
    assert read_candidates(path) == read_candidates(tmp_path) == SAID
    assert read_predictions(path) == {i: texts[0] for i, texts in SAID.items()}
    facts = run_facts("CKPT", "data.json", 4, {"num_beams": 3})
    assert read_facts(path) == {}
    write_facts(path, facts)
    write_facts(tmp_path / "mine.jsonl", {"model": "other"})
    assert read_facts(path) == read_facts(tmp_path / "result.json") == facts
    assert read_facts(tmp_path / "mine.jsonl") == {"model": "other"}
    assert (tmp_path / "mine.run.json").is_file()


@pytest.mark.parametrize(
    ("started", "typed"),
    [
        ("/x/internvl_chat/__main__.py", "python -m internvl_chat eval --out 'a b'"),
        ("/x/bin/intentvcnet", "intentvcnet eval --out 'a b'"),
        ("/x/eval_const.py", "python eval_const.py eval --out 'a b'"),
    ],
)
def test_the_command_of_a_run_can_be_typed_again(started: str, typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [started, "eval", "--out", "a b"])
    assert run_facts("CKPT", "data.json", 4, {})["command"] == typed


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", {"version": "1", "captions": {"x": "one", "y": "two"}}),
        ("a.json", {"x": "one", "y": "two"}),
        ("a.json", [{"id": "x", "answer": "one"}, {"id": "y", "answer": "two"}]),
    ],
)
def test_the_challenges_and_other_forms_are_read(name: str, content: Any, tmp_path: Path) -> None:
    (tmp_path / name).write_text(json.dumps(content))
    assert read_predictions(tmp_path / name) == {"x": "one", "y": "two"}


def test_lines_of_other_commands_are_read(tmp_path: Path) -> None:
    """`caption-videos` names videos; `answer` has several answers to a record of several questions."""
    path = lines(tmp_path / "a.jsonl", {"video": "a.mp4", "caption": "one"}, {"id": 3, "answers": ["two", "three"]})
    assert read_predictions(path) == {"a.mp4": "one", "3 (1)": "two", "3 (2)": "three"}
    (tmp_path / "c.json").write_text(json.dumps({"x": ["one", "two"]}))
    assert read_texts(tmp_path / "c.json") == {"x": ["one", "two"]}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.json",
            {"captions": {"x": ["one"]}},
            r"'x': expected a caption, got \['one'\].*swapped.*consensus",
        ),
        ("a.json", {"captions": {"x": 3}}, r"'x': expected a caption, got 3; expected JSONL"),
        ("a.json", {"points": [], "captions": {}}, "give it as --control"),
        ("a.json", {"captions": []}, r"'captions' is \[\]: expected JSONL"),
        ("a.json", {}, "holds no predictions"),
        ("a.jsonl", {"id": 1, "conversations": []}, r"a\.jsonl:1: is a record.*--references"),
        ("a.jsonl", {"id": 1, "answer": None}, r"a\.jsonl:1: .*expected JSONL with"),
        ("a.jsonl", {"answer": "x"}, r"a\.jsonl:1: .*expected JSONL with"),
        ("a.jsonl", ["x"], r"a\.jsonl:1: \['x'\]: expected JSONL"),
    ],
)
def test_what_is_no_prediction_is_named(name: str, content: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(UserError, match=said):
        read_predictions(tmp_path / name)


def test_an_id_that_comes_twice_and_candidates_that_are_none_are_named(tmp_path: Path) -> None:
    twice = lines(tmp_path / "a.jsonl", {"id": 1, "answer": "x"}, {"id": "1", "answer": "y"})
    with pytest.raises(UserError, match=r"a\.jsonl:2: id '1' comes twice"):
        read_predictions(twice)
    with pytest.raises(UserError, match=r"b\.jsonl: has one caption an id, such as 'z'.*--num_candidates"):
        read_candidates(lines(tmp_path / "b.jsonl", {"id": "z", "answer": "x"}))
