"""What records ask: each question once, with its own id, track and known answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from internvl_chat.contracts import TrackFile, UserError
from internvl_chat.data.records.annotations import DatasetEntry, load_meta, read_captions
from internvl_chat.data.records.record_questions import (
    answers_known,
    entries_in,
    read_questions,
    read_references,
)
from internvl_chat.files import write_json, write_jsonl


def record(number: object, question: str, *answers: str, **fields: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, *({"from": "gpt", "value": answer} for answer in answers)]
    return {"id": number, **fields, "conversations": turns}


def written(tmp_path: Path, *records: dict[str, Any]) -> Path:
    write_jsonl(tmp_path / "records.jsonl", records)
    return tmp_path / "records.jsonl"


def track(*box: int) -> list[dict[str, Any]]:
    return [{"name": "cup", "boxes": {"0": list(box)}, "unit": "pixels", "order": "xyxy"}]


def test_a_question_comes_once_with_all_its_answers(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        record("a", "What?", "one", video="x.mp4", tracks=track(1, 2, 3, 4)),
        record("b", "What?", "three", video="x.mp4", tracks=track(1, 2, 3, 9)),
        record("c", "What?", "two", video="x.mp4", tracks=track(1, 2, 3, 4)),
        record(4, "Why?"),
    )
    questions = read_questions(entries_in(path))
    assert answers_known(questions) == {"a": ["one", "two"], "b": ["three"]}
    assert list(questions) == ["a", "b", "4"]
    assert all(question.sample.turns[-1].speaker == "human" for question in questions.values())
    assert list(read_questions(entries_in(path), {"b"})) == ["b"]
    assert read_references(path) == {"a": ["one", "two"], "b": ["three"]}
    # However often training repeats them.
    assert read_questions([DatasetEntry("r", tmp_path, path, repeat_time=2.5)]) == questions


def test_the_challenges_records_go_by_their_videos(shapes_meta: Path) -> None:
    (entry,) = load_meta(shapes_meta)
    truth = read_captions(entry.root / "train.json")
    assert answers_known(read_questions([entry])) == truth == read_references(shapes_meta)
    assert all(isinstance(q.sample.tracks[0], TrackFile) for q in read_questions([entry]).values())


def test_two_questions_of_one_id_are_named(tmp_path: Path) -> None:
    path = written(tmp_path, record(0, "What?", "one"), record(1, "Who?", "he"), record(0, "Why?", "two"))
    with pytest.raises(UserError, match=r"records\.jsonl:3: id '0' asks another question than .*records\.jsonl:1"):
        read_questions(entries_in(path))
    assert list(read_questions(entries_in(path), {"1"})) == ["1"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a": "a text"}, r"'a': expected a list of captions, got 'a text'.*swapped"),
        ([], "records will do too"),
    ],
)
def test_what_is_no_reference_is_named(content: object, said: str, tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", content)
    with pytest.raises(UserError, match=said):
        read_references(tmp_path / "a.json")


def test_records_that_only_ask_are_no_references(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no record ends with a gpt turn"):
        read_references(written(tmp_path, record(1, "Why?")))
