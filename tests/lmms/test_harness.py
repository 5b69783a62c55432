"""lmms-eval itself, with a tiny checkpoint: two of its tasks and two of ours, and the answers that `evaluate` gives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from internvl_chat.__main__ import main
from internvl_chat.data.records.box_files import PrepareReport, find_videos, prepare_boxes
from tests.helpers import ROOT

pytest.importorskip("lmms_eval", reason="lmms-eval wants an environment of its own: see 'make lmms-eval'")
pytestmark = pytest.mark.process

TASKS = ROOT / "internvl_chat" / "lmms" / "tasks"
DIRECTIONS = ["left", "right", "up"]


def write_hub_dataset(folder: Path, config: str, split: str, rows: list[dict]) -> None:
    """A dataset where `datasets` looks before it asks the hub: in the working folder, by the hub's name."""
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = f"configs:\n- config_name: {config}\n  data_files:\n  - split: {split}\n    path: rows.jsonl\n"
    (folder / "README.md").write_text(f"---\n{files}---\n")


@pytest.fixture(scope="module")
def folder(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Miniatures of MVBench and Video-MME under the names that lmms-eval looks for, and test sets of our own."""
    folder = tmp_path_factory.mktemp("lmms")
    videos = sorted(shapes_root.rglob("*.mp4"))[:3]
    mvbench = [
        {"video": f"clip {n}.mp4", "question": "Where to?", "candidates": DIRECTIONS, "answer": DIRECTIONS[n]}
        for n in range(3)
    ]
    write_hub_dataset(folder / "OpenGVLab" / "MVBench", "moving_direction", "train", mvbench)
    options = ["A. left", "B. right", "C. up", "D. down"]
    facts = {"duration": "short", "domain": "Knowledge", "sub_category": "Astronomy", "task_type": "Counting Problem"}
    videomme = [
        {"videoID": f"clip {n}", "question": "Which way?", "options": options, "answer": "AB"[n], "question_id": str(n)}
        | facts
        for n in range(2)
    ]
    write_hub_dataset(folder / "lmms-eval" / "Video-MME", "default", "test", videomme)
    for place in ("mvbench_video/clevrer/video_validation", "videomme/data"):
        (folder / "hub" / place).mkdir(parents=True)
        for number, video in enumerate(videos):
            shutil.copy(video, folder / "hub" / place / f"clip {number}.mp4")
    data = folder / "data"
    shutil.copytree(shapes_root, data / "intentvc")
    list(prepare_boxes(find_videos(data / "intentvc"), workers=1, overwrite=False, report=PrepareReport()))
    (data / "msvd_qa").mkdir()
    shutil.copy(videos[0], data / "msvd_qa" / "vid1.mp4")
    asked = [{"video_name": "vid1", "question": f"{word} is it?", "question_id": word} for word in ("what", "where")]
    (data / "msvd_qa" / "test_q.json").write_text(json.dumps(asked))
    (data / "msvd_qa" / "test_a.json").write_text(json.dumps([{"answer": "a dog"}, {"answer": "park"}]))
    return folder


def test_the_harness_asks_as_evaluate_does(folder: Path, captioner_folder: Path) -> None:
    tasks = ["mvbench_moving_direction", "videomme", "intentvc", "msvd_qa"]
    command = [sys.executable, "-m", "lmms_eval", "--model", "intentvcnet", "--tasks", ",".join(tasks)]
    command += ["--model_args", f"pretrained={captioner_folder},num_frames=3", "--include_path", str(TASKS)]
    command += ["--batch_size", "1", "--log_samples", "--output_path", str(folder / "results")]
    variables = {"HF_HOME": folder / "hub", "INTENTVCNET_DATA": folder / "data", "HF_HUB_OFFLINE": 1}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **{name: str(value) for name, value in variables.items()}}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0 and "Error during evaluation" not in run.stderr, run.stderr[-3000:]
    (results,) = (folder / "results").rglob("*_results.json")
    scores = json.loads(results.read_text())["results"]
    assert set(scores) == set(tasks)
    said = {task: answers_of(folder / "results", task) for task in tasks}
    assert [len(said[task]) for task in tasks] == [3, 2, 3, 2]

    for task, ours in (("intentvc", "intentvc"), ("msvd_qa", "videoqa")):
        out = folder / f"evaluated {task}"
        argv = ["evaluate", ours, "--model", captioner_folder, "--data", folder / "data" / task, "--out", out]
        tokens = "128" if task == "intentvc" else "32"
        assert main([*map(str, argv), "--num_frames", "3", "--max_new_tokens", tokens]) == 0
        lines = map(json.loads, (out / "answers.jsonl").read_text().splitlines())
        assert sorted(line["answer"] for line in lines) == sorted(said[task])
        values = json.loads((out / "scores.json").read_text())["scores"]
        shared = {name: values[name] for name in values if f"{name},none" in scores[task]}
        assert shared and all(scores[task][f"{name},none"] == pytest.approx(value) for name, value in shared.items())


def answers_of(folder: Path, task: str) -> list[str]:
    (path,) = folder.rglob(f"*_samples_{task}.jsonl")
    return [json.loads(line)["filtered_resps"][0] for line in path.read_text().splitlines()]
