"""Open questions about videos: what is right to the word, and that every question counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from internvl_chat.__main__ import main
from internvl_chat.contracts import UserError
from internvl_chat.tasks.benchmark import task_named
from internvl_chat.tasks.videoqa import plain


def write(folder: Path, **changes: object) -> Path:
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    for name in ("vid1.mp4", "vid2.avi"):
        (folder / "videos" / name).touch()
    asked = [{"video_name": f"vid{1 + n % 2}", "question": f"who {n}?", "question_id": n} for n in range(5)]
    truths = [
        {"answer": word, "type": "who" if n < 3 else "what"} for n, word in enumerate("man dog cat run two".split())
    ]
    asked[3] |= changes
    (folder / "test_q.json").write_text(json.dumps(asked))
    (folder / "test_a.json").write_text(json.dumps(truths))
    return folder


def test_questions_come_with_their_videos(tmp_path: Path) -> None:
    samples = task_named("videoqa").read(write(tmp_path)).samples
    assert [sample.id for sample in samples] == list("01234")
    assert samples[1].video_path == tmp_path / "videos" / "vid2.avi"
    assert samples[4].turns[-1].text == "<video>\nwho 4?"


def test_every_question_counts_also_without_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    said = {"0": "The man.", "1": "a puppy", "3": "RUN", "4": "two dogs"}
    lines = "".join(json.dumps({"id": i, "answer": text}) + "\n" for i, text in said.items())
    (tmp_path / "answers.jsonl").write_text(lines)
    argv = ["score", "videoqa", "--data", str(tmp_path), "--predictions", str(tmp_path / "answers.jsonl")]
    assert main(argv) == 0
    told = capsys.readouterr().out.splitlines()
    assert json.loads(told[-1]) == {"exact": 0.4, "unanswered": 1}
    assert [line.partition(" (")[0] for line in told[:3]] == ["who: 0.333", "what: 0.500", "all: 0.400"]


def test_an_empty_reply_is_no_answer(tmp_path: Path) -> None:
    scores = task_named("videoqa").read(write(tmp_path)).score({"0": ["man"], "1": [""], "2": [" \n"]})
    assert scores.values == {"exact": 0.2, "unanswered": 4}


@pytest.mark.parametrize(
    ("text", "expected"), [("A dog.", "dog"), ("the  DOG!", "dog"), ("an-other", "other"), ("two", "two"), ("…", "")]
)
def test_case_punctuation_and_articles_are_not_compared(text: str, expected: str) -> None:
    assert plain(text) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video_name": "vid9"}, "test_q.json: entry 3: no video vid9 below the folder"),
        ({"question_id": 2}, "test_q.json: entry 3: question_id '2' comes twice"),
        ({"question": 5}, "test_q.json: entry 3: .*expected video_name, question, question_id"),
    ],
)
def test_faults_name_file_and_entry(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        task_named("videoqa").read(write(tmp_path, **changes))


def test_a_name_of_two_videos_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path)
    video = next(path for path in folder.rglob("*") if path.suffix in (".mp4", ".avi", ".mkv", ".gif", ".webm"))
    (folder / "other").mkdir()
    (folder / "other" / video.name).touch()
    with pytest.raises(UserError, match=f"'{video.stem}' may be .* or .*: expected one video of this name"):
        task_named("videoqa").read(folder)


def test_lists_of_other_lengths_are_refused(tmp_path: Path) -> None:
    (write(tmp_path) / "test_a.json").write_text('[{"answer": "man"}]')
    with pytest.raises(UserError, match="5 questions in test_q.json and 1 answers in test_a.json"):
        task_named("videoqa").read(tmp_path)
