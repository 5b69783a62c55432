"""Whole collections of videos: nothing is lost, written twice, or cut without a word."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from internvl_chat.__main__ import build_parser, main
from internvl_chat.scoring.predictions import read_predictions
from tests.data.clips import write_clip
from tests.helpers import ROOT

pytestmark = pytest.mark.process

# A name in Latin-1, one with a quote and a space, one below, and one that is no UTF-8.
NAMES = ["b.mp4", "caf\xe9 \u4e00.mp4", 'below/it\'s "one".mkv', os.fsdecode(b"below/\xff.mp4"), "c.mp4"]
TRACK = {"name": "cup", "boxes": {"0": [10, 8, 300, 280]}, "unit": "thousandths", "order": "xyxy"}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five videos of 10 to 60 frames (25 a second), and what is none; read only."""
    folder = tmp_path_factory.mktemp("videos") / "clips"
    (folder / "below").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        write_clip(folder / name, 10 + number * 12)
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "notes.txt").write_text("not a video")
    return folder


@pytest.fixture
def run(captioner_folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command: exit code, what it printed, and what it complained of."""

    def caption(*argv: object) -> tuple[int, str, str]:
        settings = ["--model", captioner_folder, "--num_workers", 0, "--max_new_tokens", 5, "--strategy", "fps4"]
        code = main([str(word) for word in ("caption-videos", *settings, *argv)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return caption


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_folder_is_captioned_and_its_broken_video_named(run: Run, clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said, complained = run(clips, "--out", out)
    assert code == 1
    assert said.startswith(f"{out}: 5 captions, 5 of them new at ") and said.endswith(", 1 failure\n")
    assert "broken.mp4" in complained
    assert complained.splitlines()[-1] == "next: mend what is named; the same command again does what is left"
    records = lines(out / "captions.jsonl")
    assert [record["video"] for record in records] == sorted(n for n in NAMES if "/" not in n) + sorted(
        n for n in NAMES if "/" in n
    )
    first = records[0]
    assert (first["frames"], first["times"]) == ([0, 6], [0.0, 0.24])
    assert first["seconds"] == [0.0, 0.4] and "unseen" not in first
    assert (first["question"], first["strategy"]) == ("Please describe this video in detail.", "fps4")
    assert [failure["video"] for failure in lines(out / "failures.jsonl")] == ["broken.mp4"]

    before = (out / "captions.jsonl").read_bytes()
    code, said, _ = run(clips, "--out", out, "--batch_tokens", 1)
    assert code == 1 and "5 captions, 0 of them new" in said
    assert (out / "captions.jsonl").read_bytes() == before
    # One at a time, each alone in its batch: the same captions.
    _, said, _ = run(clips, "--out", tmp_path / "alone", "--batch_tokens", 1, "--json")
    told = json.loads(said)
    assert (told["out"], told["captions"], told["new"], told["failures"]) == (str(tmp_path / "alone"), 5, 5, 1)
    assert (tmp_path / "alone" / "captions.jsonl").read_bytes() == before


def test_only_what_is_left_or_changed_is_written(run: Run, clips: Path, tmp_path: Path) -> None:
    own, out = tmp_path / "own", tmp_path / "out"
    shutil.copytree(clips, own)
    (own / "broken.mp4").unlink()
    (own / "c.mp4").rename(tmp_path / "c.mp4")
    assert "4 captions, 4 of them new" in run(own, "--out", out)[1]
    (tmp_path / "c.mp4").rename(own / "c.mp4")
    assert "5 captions, 1 of them new" in run(own, "--out", out)[1]
    write_clip(own / "b.mp4", 31)
    assert "5 captions, 1 of them new" in run(own, "--out", out)[1]
    code, said, _ = run(own, "--out", out, "--question", "What moves?")
    assert code == 0 and "5 captions, 5 of them new" in said
    assert {record["question"] for record in lines(out / "captions.jsonl")} == {"What moves?"}
    assert not (out / "failures.jsonl").exists()


def test_a_long_video_is_cut_in_windows_or_what_is_not_seen_is_said(run: Run, tmp_path: Path) -> None:
    video = write_clip(tmp_path / "long.mp4", 65)
    assert run(video, "--out", tmp_path / "cut", "--window", 1)[0] == 0
    windows = lines(tmp_path / "cut" / "captions.jsonl")
    assert [record["seconds"] for record in windows] == [[0.0, 1.0], [1.0, 2.0], [2.0, 2.6]]
    assert [record["frames"] for record in windows] == [[0, 6, 12, 19], [25, 31, 37, 44], [50, 56, 62]]
    assert list(read_predictions(tmp_path / "cut")) == [f"{windows[0]['video']} at {start} s" for start in (0, 1, 2)]
    assert run(video, "--out", tmp_path / "whole", "--strategy", "chat")[0] == 0
    (whole,) = lines(tmp_path / "whole" / "captions.jsonl")
    assert (whole["frames"], whole["times"], whole["strategy"]) == ([0, 25, 50, 64], [0.0, 1.0, 2.0, 2.56], "chat")


def test_every_kind_of_list_is_read_alike(run: Run, clips: Path, tmp_path: Path) -> None:
    names = NAMES[:3]
    (clips / "list.txt").write_bytes(b"".join(os.fsencode(name) + b"\r\n" for name in names) + b"\n")
    (clips / "list.jsonl").write_text("".join(json.dumps({"video": name}) + "\n" for name in names))
    with (clips / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["video", "question"], *([name, ""] for name in names)])
    written = []
    for kind in ("txt", "jsonl", "csv"):
        assert run(clips / f"list.{kind}", "--out", tmp_path / kind)[0] == 0
        written.append((tmp_path / kind / "captions.jsonl").read_bytes())
    assert written[0] == written[1] == written[2]
    assert [json.loads(line)["video"] for line in written[0].splitlines()] == names


def test_a_list_may_ask_several_questions_of_one_video(run: Run, clips: Path, tmp_path: Path) -> None:
    asked = [{"video": "b.mp4", "question": "What?"}, {"video": "b.mp4", "question": "Where?"}, {"video": "b.mp4"}]
    # Asked the same once more, and with a track, which matters to --objects alone: no line of its own.
    asked += [{"video": "b.mp4", "question": "What?"}, {"video": "b.mp4", "tracks": [TRACK]}]
    (clips / "asked.jsonl").write_text("".join(json.dumps(record) + "\n" for record in asked))
    assert run(clips / "asked.jsonl", "--out", tmp_path, "--question", "Who?")[0] == 0
    assert [record["question"] for record in lines(tmp_path / "captions.jsonl")] == ["What?", "Where?", "Who?"]
    assert list(read_predictions(tmp_path)) == ["b.mp4: What?", "b.mp4: Where?", "b.mp4: Who?"]


def test_each_tracked_object_gets_a_caption_of_its_own(run: Run, tmp_path: Path) -> None:
    """By tracks of a list's record, of a file of the video's name, and of the box file of its folder."""
    for place in ("a/cup-1.mp4", "b/two.mp4", "c/none.mp4"):
        (tmp_path / place).parent.mkdir()
        write_clip(tmp_path / place, 25)
    boxes = {"cup": [[10 + 2 * n, 8, 30 + 2 * n, 28] for n in range(25)], "lid": [[0, 0, 50, 40]] * 25}
    tracks = [{"name": name, "boxes": rows, "unit": "pixels", "order": "xyxy"} for name, rows in boxes.items()]
    (tmp_path / "a" / "object_bboxes.txt").write_text("".join(f"{10 + n},8,20,20\n" for n in range(25)))
    (tmp_path / "b" / "two.json").write_text(json.dumps({"tracks": tracks}))
    listed = [{"video": "c/none.mp4", "tracks": tracks[1:]}, {"video": "b/two.mp4"}, {"video": "a/cup-1.mp4"}]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    assert run(tmp_path / "list.jsonl", "--out", tmp_path / "listed", "--objects")[0] == 0
    records = lines(tmp_path / "listed" / "captions.jsonl")
    assert [(record["video"], record["object"]) for record in records] == [
        ("c/none.mp4", "lid"),
        ("b/two.mp4", "cup"),
        ("b/two.mp4", "lid"),
        ("a/cup-1.mp4", "cup"),
    ]
    ids = ["c/none.mp4 lid", "b/two.mp4 cup", "b/two.mp4 lid", "a/cup-1.mp4 cup"]
    assert read_predictions(tmp_path / "listed") == dict(zip(ids, (r["caption"] for r in records), strict=True))
    report = ["report", str(tmp_path / "listed"), "--out", str(tmp_path / "report.html")]
    assert main(report) == 0 and "b/two.mp4 lid" in (tmp_path / "report.html").read_text()
    # Captions of whole videos would be written over them, and the other way round.
    before = (tmp_path / "listed" / "captions.jsonl").read_bytes()
    code, _, complained = run(tmp_path / "list.jsonl", "--out", tmp_path / "listed")
    assert code == 1 and "holds captions of objects, and those of whole videos would be written over" in complained
    assert (tmp_path / "listed" / "captions.jsonl").read_bytes() == before
    asked = "Describe this video in one sentence, and focus on cup located in the coordinate list."
    assert records[1]["question"] == records[3]["question"] == asked
    # Same clip and question; the box alone differs.
    assert records[1]["caption"] != records[3]["caption"] and records[1]["frames"] == records[3]["frames"]

    code, _, complained = run(tmp_path / "a", tmp_path / "c", "--out", tmp_path / "folders", "--objects")
    assert code == 1 and "none.mp4: no tracks: expected 'tracks' in its list, or one of none.json" in complained
    (found,) = lines(tmp_path / "folders" / "captions.jsonl")
    assert (found["object"], found["caption"]) == ("cup", records[3]["caption"])
    assert run(tmp_path / "a", "--out", tmp_path / "layout", "--objects", "--layout", "cogvideox")[0] == 1

    # An object a line, as records have them: two of one name could not be told apart.
    two = [{"video": "b/two.mp4", "tracks": [{**track, "name": "cup"}]} for track in tracks]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in two))
    code, _, complained = run(tmp_path / "list.jsonl", "--out", tmp_path / "alike", "--objects")
    assert code == 1 and "b/two.mp4: lines of the list call two tracks 'cup'" in complained
    assert not (tmp_path / "alike" / "captions.jsonl").exists()


def test_candidates_and_other_forms_are_written_beside(run: Run, clips: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    forms = ["--txt", "--layout", "cogvideox", "--parquet", "--num_beams", 3, "--num_candidates", 2]
    assert run(clips / "below", clips / "b.mp4", "--out", tmp_path, *forms)[0] == 0
    records = lines(tmp_path / "captions.jsonl")
    assert [len(record["candidates"]) for record in records] == [2, 2, 2]
    assert parquet.read_table(tmp_path / "captions.parquet")["caption"].to_pylist() == [r["caption"] for r in records]
    prompts = (tmp_path / "prompts.txt").read_text().split("\n")
    videos = (tmp_path / "videos.txt").read_bytes().split(b"\n")
    assert prompts == [*(" ".join(record["caption"].split()) for record in records), ""]
    assert videos == [*(os.fsencode(record["video"]) for record in records), b""]
    for record in records:
        text = tmp_path / "txt" / Path(record["video"].removeprefix("/")).with_suffix(".txt")
        assert text.read_text() == record["caption"] + "\n"

    # Other captions of other videos, without these flags: no form is older than captions.jsonl.
    assert run(clips / "b.mp4", "--out", tmp_path, "--strategy", "uniform1")[0] == 0
    (record,) = lines(tmp_path / "captions.jsonl")
    assert record["caption"] != records[2]["caption"]
    assert (tmp_path / "prompts.txt").read_text() == " ".join(record["caption"].split()) + "\n"
    assert parquet.read_table(tmp_path / "captions.parquet")["caption"].to_pylist() == [record["caption"]]
    assert [path.read_text() for path in (tmp_path / "txt").rglob("*.txt")] == [record["caption"] + "\n"]
    code, _, complained = run(clips / "b.mp4", "--out", tmp_path, "--window", 1)
    assert code == 1 and "holds prompts.txt, which has one caption a video" in complained


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["nowhere"], "nowhere: is neither a folder"),
        (["empty"], "empty: holds no videos"),
        (["missing.txt"], "missing.txt:2: video not found"),
        (["bare.csv"], "bare.csv: its first line names no column 'video'"),
        (["odd.jsonl"], "odd.jsonl:1: 'video' is 7"),
        (["part.jsonl"], "part.jsonl:1: 'clip' is [1, 2]: a video is captioned whole, or in windows (--window)"),
        (["a.mp4", "--window", "0"], "--window 0: expected more than 0"),
        (["a.mp4", "--window", "2", "--layout", "cogvideox"], "--layout and --window"),
        (["a\nb.mp4", "--layout", "cogvideox"], "the name 'a\\nb.mp4' holds a line break"),
        (["a.mp4", "--parquet"], "--parquet: install requirements/parquet.txt"),
        (["a.mp4", "--strategy", "all"], "frame choice 'all'"),
        (["a.mp4", "--num_candidates", "3"], "--num_candidates 3"),
        (["a.mp4", "--model", "nowhere"], "nowhere: is neither a checkpoint folder"),
        (["a.mp4", "--model", "empty"], "empty: is no checkpoint"),
        (["a.mp4", "--model", "bert"], "bert: is a 'bert' model, expected one of"),
        (["a.mp4", "--video_timeout", "0"], "--video_timeout 0: expected more than 0"),
        (["a.mp4", "--actors", "2"], "--actors 2: belongs to --engine ray"),
        (["a.mp4", "--engine", "ray"], "--engine ray: install requirements/ray.txt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_one_message_and_writes_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "a.mp4", 3)
    shutil.copy("a.mp4", "a\nb.mp4")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    for package in ("ray", "pyarrow"):
        monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "missing.txt").write_text("a.mp4\nb.mp4\n")
    (tmp_path / "bare.csv").write_text("a.mp4\n")
    (tmp_path / "odd.jsonl").write_text('{"video": 7}\n')
    (tmp_path / "part.jsonl").write_text('{"video": "a.mp4", "clip": [1, 2]}\n')
    code, said, complained = run("--out", "out", *argv)
    assert (code, said) == (1, "")
    assert complained.startswith("error: ") and told in complained and complained.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_another_models_captions_are_left_alone(run: Run, captioner_folder: Path, clips: Path, tmp_path: Path) -> None:
    other = shutil.copytree(captioner_folder, tmp_path / "other")
    out = tmp_path / "out"
    assert run(clips / "b.mp4", "--out", out)[0] == 0
    before = (out / "captions.jsonl").read_bytes()
    code, _, complained = run(clips / "c.mp4", "--out", out, "--model", other, "--base", "elsewhere")
    assert code == 1 and "holds captions of another model" in complained
    assert (out / "captions.jsonl").read_bytes() == before
    (out / "run.json").unlink()
    code, _, complained = run(clips / "c.mp4", "--out", out)
    assert code == 1 and "holds a captions.jsonl that is not from here" in complained


def test_two_videos_of_one_name_are_told(run: Run, clips: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        shutil.copy(clips / "b.mp4", tmp_path / folder / "a.mp4")
        (tmp_path / folder / "list.txt").write_text("a.mp4\n")
    code, _, complained = run(tmp_path / "one" / "list.txt", tmp_path / "two" / "list.txt", "--out", tmp_path / "out")
    assert code == 1 and "two videos are called 'a.mp4'" in complained


def test_the_tasks_of_an_array_share_a_list(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("".join(f"{number}.mp4\n" for number in range(7)))
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$*"\ncat "$4"\n')
    python.chmod(0o755)
    seen = []
    for task in range(3):
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": str(task)}
        done = subprocess.run(
            ["sh", ROOT / "shell" / "caption_videos.sbatch", "list.txt", "CKPT", "out"],
            cwd=tmp_path,
            env={**environment, "SLURM_ARRAY_TASK_COUNT": "3"},
            capture_output=True,
            text=True,
            check=True,
        )
        command, *share = done.stdout.splitlines()
        assert build_parser().parse_args(command.split()[2:]).out == Path(f"out/part-{task}-of-3")
        seen += share
    assert sorted(seen) == [f"{number}.mp4" for number in range(7)]
