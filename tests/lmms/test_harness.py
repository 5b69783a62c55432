"""lmms-eval itself, with a tiny checkpoint: its tasks and ours, the answers that `evaluate` gives, and a server's."""

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
from tests.serving import conftest as serving  # noqa: E402

start_server = serving.start_server

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
    scores = run_harness(folder, "results", tasks, "intentvcnet", f"pretrained={captioner_folder},num_frames=3")
    said = {task: answers_of(folder / "results", task) for task in tasks}
    # Three clips a set are described in IntentVC's folder; the other three are asked, and not scored.
    assert [len(said[task]) for task in tasks] == [3, 2, 6, 2]

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


def test_a_chat_model_is_asked_our_tasks_and_theirs(folder: Path, start_server: serving.StartServer) -> None:
    """lmms-eval's own `openai` model asks `serve`, with no plug-in: a video goes as pictures, then the question."""
    server = start_server("--name", "tiny", "--max_images", "4", "--max_new_tokens", "4000", "--max_body_mb", "64")
    tasks = ["videomme", "msvd_qa"]
    settings = f"model_version=tiny,base_url={server.url}/v1,api_key={serving.KEY},max_frames_num=4"
    settings += ",timeout=120,max_retries=1"
    scores = run_harness(folder, "served", tasks, "openai", settings)
    assert "exact,none" in scores["msvd_qa"]
    said = {task: answers_of(folder / "served", task) for task in tasks}
    assert [len(said[task]) for task in tasks] == [2, 2]
    assert not any("REQUEST_FAILED" in text for texts in said.values() for text in texts)

    from lmms_eval.protocol import ChatMessages

    video = str(folder / "data" / "msvd_qa" / "vid1.mp4")
    for question, text in zip(["what is it?", "where is it?"], said["msvd_qa"], strict=True):
        turn = {"role": "user", "content": [{"type": "video", "url": video}, {"type": "text", "text": question}]}
        messages = ChatMessages(messages=[turn]).to_openai_messages(video_kwargs={"nframes": 4})
        reply = server.client.chat.completions.create(model="tiny", messages=messages, max_tokens=32, temperature=0)
        assert reply.choices[0].message.content.strip() == text.strip()


def run_harness(folder: Path, out: str, tasks: list[str], model: str, settings: str) -> dict[str, dict[str, float]]:
    """The scores by task of a run in the folder."""
    command = [sys.executable, "-m", "lmms_eval", "--model", model, "--tasks", ",".join(tasks)]
    command += ["--model_args", settings, "--include_path", str(TASKS)]
    command += ["--batch_size", "1", "--log_samples", "--output_path", str(folder / out)]
    variables = {"HF_HOME": folder / "hub", "INTENTVCNET_DATA": folder / "data", "HF_HUB_OFFLINE": 1}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **{name: str(value) for name, value in variables.items()}}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    (results,) = (folder / out).rglob("*_results.json") if (folder / out).is_dir() else [None]
    assert run.returncode == 0 and results, run.stdout[-3000:] + run.stderr[-5000:]
    scores = json.loads(results.read_text())["results"]
    assert set(scores) == set(tasks)
    return dict(scores)


def answers_of(folder: Path, task: str) -> list[str]:
    (path,) = folder.rglob(f"*_samples_{task}.jsonl")
    said = [json.loads(line)["filtered_resps"] for line in path.read_text().splitlines()]
    # A list of one answer is written as the answer.
    return [text if isinstance(text, str) else text[0] for text in said]
