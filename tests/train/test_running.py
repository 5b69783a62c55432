"""A training that never ends says what it waits for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.train.running import finish

pytestmark = pytest.mark.process

WAITS = """
import os, time
def a_worker_that_waits(): time.sleep(600)
def a_parent_that_waits(child): os.waitpid(child, 0)
print("begun", flush=True)
child = os.fork()
a_parent_that_waits(child) if child else a_worker_that_waits()
"""


def test_a_process_that_never_ends_shows_its_stacks() -> None:
    script = ["sh", "-c", '"$0" -c "$1"; true', sys.executable, WAITS]
    process = subprocess.Popen(script, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with pytest.raises(AssertionError, match="did not end in 0.7 s") as told:
        finish(process, limit_s=0.7)
    for part in ("begun", "in a_worker_that_waits", "in a_parent_that_waits"):
        assert part in str(told.value)
    assert process.poll() is not None
