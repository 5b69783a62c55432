"""caption-videos, killed in the middle, and on a disk that is full."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from internvl_chat.__main__ import main
from internvl_chat.contracts import UserError
from internvl_chat.inference.ledger import ProgressFile, read_progress
from tests.data.clips import write_clip
from tests.helpers import ROOT

pytestmark = pytest.mark.process


def finished(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (out / "progress").glob("*.jsonl"))


def test_a_killed_run_goes_on_to_the_files_of_an_undisturbed_one(captioner_folder: Path, tmp_path: Path) -> None:
    clips, calm, killed = (tmp_path / name for name in ("clips", "calm", "killed"))
    clips.mkdir()
    for number in range(7):
        write_clip(clips / f"{number}.mp4", 5 + number)
    settings = "--num_workers 0 --max_new_tokens 90 --batch_tokens 1 --strategy uniform3 --txt".split()
    command = ["caption-videos", str(clips), "--model", str(captioner_folder), *settings, "--out"]
    assert main([*command, str(calm)]) == 0

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with (tmp_path / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "internvl_chat", *command, str(killed)], env=environment, stdout=log, stderr=log
        )
        while not finished(killed) and process.poll() is None:
            time.sleep(0.005)
        process.kill()
    assert process.wait() == -signal.SIGKILL, (tmp_path / "log.txt").read_text()
    assert 1 <= finished(killed) < 7 and not (killed / "captions.jsonl").exists()
    assert main([*command, str(killed)]) == 0
    assert finished(killed) == 7
    files = [
        path.relative_to(calm) for path in sorted(calm.rglob("*")) if path.is_file() and "progress" not in path.parts
    ]
    assert len(files) == 9
    assert [name for name in files if (killed / name).read_bytes() != (calm / name).read_bytes()] == []


def test_a_full_disk_is_one_message_and_keeps_what_was_finished(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with ProgressFile(tmp_path, 0) as file:
        file.append([{"key": "a", "candidates": ["short"]}])
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
            with pytest.raises(
                UserError, match="rank-00000.jsonl: cannot be written .*; what was finished before is kept"
            ):
                file.append([{"key": "b", "candidates": ["long " * 100]}])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_progress(tmp_path) == {"a": ["short"]}
