"""What a process keeps to itself is free once it is gone, whatever it forked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from internvl_chat.contracts import UserError
from internvl_chat.journal import Journal
from internvl_chat.train.output_folder import held

pytestmark = pytest.mark.process

# Takes both, forks a worker that outlives it and says which it is, and waits to be killed.
_HOLDER = """
import os, sys, time
from pathlib import Path
from internvl_chat.journal import Journal
from internvl_chat.train.output_folder import held

folder = Path(sys.argv[1])
with Journal(folder / "done.jsonl") as journal, held(folder / "run"):
    journal.note("one", 1)
    if not os.fork():
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


def test_a_worker_that_outlives_its_killed_parent_holds_up_nobody(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        worker = int(holder.stdout.readline())
        with pytest.raises(UserError, match="another run is writing to it"):
            Journal(tmp_path / "done.jsonl")
        with pytest.raises(UserError, match="another run is writing there"), held(tmp_path / "run"):
            pass
        holder.kill()
        holder.wait()
        try:
            os.kill(worker, 0)
            with Journal(tmp_path / "done.jsonl") as journal, held(tmp_path / "run"):
                assert journal.done == {"one": 1}
        finally:
            os.kill(worker, signal.SIGKILL)


def test_a_number_that_was_let_go_is_another_files_in_what_is_forked_next(tmp_path: Path) -> None:
    with Journal(tmp_path / "done.jsonl"), held(tmp_path / "run"):
        pass
    files = [(tmp_path / f"{number}.txt").open("w+") for number in range(4)]
    worker = os.fork()
    if not worker:
        for file in files:
            file.write("seen")
            file.flush()
        os._exit(0)
    os.waitpid(worker, 0)
    assert [Path(file.name).read_text() for file in files] == ["seen"] * 4
    for file in files:
        file.close()
