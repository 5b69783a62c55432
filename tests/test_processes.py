"""A program ends with its own code, after all that was to be done; a forked process frees nothing that it inherited."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from internvl_chat.processes import worker_pool
from tests.helpers import ROOT

pytestmark = pytest.mark.process


class _Inherited:
    """Garbage in a circle, as a decoder that a frame points back to; whoever frees it away from home is told of."""

    def __init__(self, freed_by: Any) -> None:
        self.me, self.home, self.freed_by = self, os.getpid(), freed_by

    def __del__(self) -> None:
        if os.getpid() != self.home:
            with open(self.freed_by, "a") as file:
                file.write("freed\n")


def _collect(_: int) -> int:
    import gc

    return gc.collect() * 0


def test_inherited_garbage_is_left_alone(tmp_path: Any) -> None:
    import gc

    gc.disable()
    try:
        _Inherited(tmp_path / "freed")
        with worker_pool(2) as pool:
            assert list(pool.map(_collect, range(3))) == [0, 0, 0]
    finally:
        gc.enable()
    gc.collect()
    assert not (tmp_path / "freed").exists()


PROGRAM = """
import atexit, os, sys
from internvl_chat.processes import run

def main():
    atexit.register(print, "at the end")
    print("said", end="")
    {}

run(main)
"""


def ran(line: str) -> tuple[int, str, str]:
    argv = [sys.executable, "-c", PROGRAM.format(line)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("return 0", 0, ""),
        ("return None", 0, ""),
        ("return 3", 3, ""),
        ("sys.exit(2)", 2, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit('error: no')", 1, "error: no\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
    ],
)
def test_a_program_ends_with_its_own_code(line: str, code: int, told: str) -> None:
    ended, said, error = ran(line)
    assert (ended, error[-len(told) :] if told else error) == (code, told)
    assert said.endswith("saidat the end\n")


def test_a_forked_process_ends_as_it_says() -> None:
    assert ran("return os.waitstatus_to_exitcode(os.wait()[1]) if os.fork() else sys.exit(6)")[0] == 6


def test_what_nobody_reads_any_more_ends_nothing_badly() -> None:
    assert ran("sys.stdout.close(); return 4")[0] == 4


COLLECTOR = """
import gc, sys, time, types
from internvl_chat import processes

usual = gc.get_threshold()
processes.collect_rarely()
held = []

def many():
    held.extend([] for _ in range(25_000))

many()
sys.modules["new"] = types.ModuleType("new")
many()
assert gc.get_threshold() != usual, "something was imported a moment ago"
time.sleep(processes._QUIET_S * 1.2)
many()
assert gc.get_threshold() == usual and not gc.callbacks, gc.get_threshold()
"""


def test_the_collector_works_as_usual_when_importing_is_over() -> None:
    """Otherwise what a server's requests leave in circles, frames among it, is held by the hundred."""
    done = subprocess.run([sys.executable, "-c", COLLECTOR], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
