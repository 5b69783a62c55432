"""Trainings in processes of their own: waited for, and where one never ends, asked what it waits for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.helpers import ROOT
from tests.test_recipes import flags_of, started


def finish(process: subprocess.Popen[str], limit_s: float = 300) -> str:
    """What a process printed, once it ended well.

    Raises:
        AssertionError: it ended badly, or did not end: then with the stacks of all its threads.
    """
    try:
        output, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"did not end in {limit_s:g} s:\n{_stacks(process)[-24000:]}") from None
    assert process.returncode == 0, output[-6000:]
    return output


def run_on_two_ranks(program: Path, *argv: str | Path, limit_s: float = 300) -> str:
    """Run a program under torchrun on two CPU ranks, and return what it printed."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    process = subprocess.Popen(
        [*torchrun, str(program), *map(str, argv)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return finish(process, limit_s)


def flags_from(script: Path, folder: Path, *flags: str, **settings: str) -> list[str]:
    """What a script hands to the training for these flags and settings; `folder` takes what it needs to tell."""
    words = started(script, folder, *flags, **settings)
    return [word for pair in flags_of(words).items() for word in pair]


def train_in_turn(folder: Path, runs: Sequence[tuple[list[str], str, str]]) -> str:
    """Trainings on two ranks in one start of torchrun, which spares imports; what they printed.

    Args:
        runs: flags, the output folder, and where it is merged to, which may be empty.
    """
    (folder / "runs.json").write_text(json.dumps(runs))
    return run_on_two_ranks(Path(__file__).with_name("runs_probe.py"), folder / "runs.json")


def kill_with_children(process: subprocess.Popen[str]) -> str:
    """Kill a process and all below it, as a machine that is taken away does; what it had printed."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.kill()
    psutil.wait_procs(family, timeout=30)
    return process.communicate()[0]


def _stacks(process: subprocess.Popen[str]) -> str:
    """The processes below one and all they printed; a Python that is told to abort prints its stacks at last."""
    family = psutil.Process(process.pid).children(recursive=True)
    tree = [
        f"{member.pid} of {member.ppid()}, {member.status()}: {' '.join(member.cmdline())[:200]}" for member in family
    ]
    # All at once, so that none goes on because another has ended.
    for number in (signal.SIGSTOP, signal.SIGABRT, signal.SIGCONT):
        for member in family:
            if member.is_running() and "python" in member.name():
                member.send_signal(number)
    psutil.wait_procs(family, timeout=5)
    return "\n".join([*tree, kill_with_children(process)])
