"""Multiple choice about videos: what is asked, and that every question counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from internvl_chat.__main__ import main
from internvl_chat.commands.options import rounded
from internvl_chat.contracts import UserError
from internvl_chat.tasks.benchmark import task_named

PROMPT = "What does it do?\nA. A dog runs\nB. It sleeps\nC. Nothing\nBest option:"


def write(folder: Path, changes: list[dict]) -> Path:
    items = [
        {
            "question_id": n,
            "video": f"v{n}.mp4",
            "prompt": PROMPT,
            "GT": "ABC"[n % 3],
            "category": ("even", "odd")[n % 2],
        }
        for n in range(5)
    ]
    for item, change in zip(items, changes, strict=False):
        item |= change
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def test_questions_come_with_their_videos_and_options(tmp_path: Path) -> None:
    write(tmp_path, [])
    benchmark = task_named("videochoice").read(tmp_path)
    assert [sample.id for sample in benchmark.samples] == list("01234")
    assert benchmark.samples[2].video_path == tmp_path / "v2.mp4"
    assert [turn.text for turn in benchmark.samples[0].turns] == [f"<video>\n{PROMPT}"]


def test_every_question_counts_also_without_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, answers = write(tmp_path, []), tmp_path / "answers.jsonl"
    said = {"0": "(A)", "1": "It sleeps", "2": "A dog", "4": "B."}
    answers.write_text("".join(json.dumps({"id": i, "answer": text}) + "\n" for i, text in said.items()))
    assert main(["score", "videochoice", "--data", str(path), "--predictions", str(answers)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1]) == {"accuracy": 0.6, "unparsed": 2}
    assert [line.partition(":")[0] for line in lines[:3]] == ["even", "odd", "all"]
    assert lines[0].startswith("even: 0.667") and lines[0].endswith("of 3, 1 not read")


def test_all_faults_are_told_by_line(tmp_path: Path) -> None:
    path = write(tmp_path, [{"GT": "E"}, {"video": "../v.mp4"}, {"prompt": 3}, {"question_id": 4}])
    with pytest.raises(UserError) as error:
        task_named("videochoice").read(path)
    lines = str(error.value).splitlines()
    assert [line.removeprefix(f"{path}:")[:2] for line in lines] == ["1:", "2:", "3:", " q"]
    (tmp_path / "more.jsonl").touch()
    with pytest.raises(UserError, match="holds 2 .jsonl files"):
        task_named("videochoice").read(tmp_path)


def test_a_checkpoint_is_asked_and_scored(
    captioner_folder: Path, shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = sorted(shapes_root.glob("*/*/*.mp4"))[:3]
    for number, video in enumerate(videos):
        (tmp_path / f"v{number}.mp4").write_bytes(video.read_bytes())
    items = [{"question_id": n, "video": f"v{n}.mp4", "prompt": PROMPT, "GT": "A"} for n in range(3)]
    path = tmp_path / "mvbench.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    argv = ["evaluate", "videochoice", "--model", captioner_folder, "--data", path, "--out", tmp_path / "out"]
    argv += ["--num_frames", 2, "--max_new_tokens", 3, "--num_workers", 0]
    assert main(list(map(str, argv))) == 0
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert (scores["questions"], scores["answered"], scores["details"]["questions"]) == (3, 3, 3)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == rounded(scores["scores"])
    assert main([*map(str, argv), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["questions"], told["answered"], told["scores"]) == (3, 3, rounded(scores["scores"]))
    (row,) = scores["rows"]
    assert (row["count"], row["value"], row["unread"]) == (
        3,
        scores["scores"]["accuracy"],
        scores["scores"]["unparsed"],
    )
    # What others published on this test set stands beside it, with its conditions.
    assert [other["values"]["accuracy"] for other in scores["published"]] == [0.429, 0.48, 0.484, 0.496, 0.507, 0.516]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Idefics3, zero-shot" in page and "T2Vid, 24 frames" in page and "replies could not be read" in page
    assert task_named("videochoice").read(write(tmp_path, [])).published == []
