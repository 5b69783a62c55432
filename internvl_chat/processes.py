"""How programs start and end, sooner than Python would by itself; and forks, which leave alone what they inherit.

PyTorch and what stands on it make some million objects while they are imported. Python's collector goes through them
again and again meanwhile, and once more when the interpreter takes itself apart, while native threads still run, which
has ended programs with an abort. A forked process must not free what its parent has in memory, nor keep its locks when
it is gone.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import NoReturn

# New objects between two looks of the collector, and looks at the young between two at older ones: Python's own, and
# while much is imported. More than these took no less time.
_USUAL = gc.get_threshold()
_WHILE_IMPORTING = 10_000, 10, 10
# Seconds between looks with no new module in them, and importing is over; a large module alone takes some tenths.
_QUIET_S = 1.0
_modules_seen, _imported_at = 0, 0.0

_started_in: int | None = None
_exit_code = 1

_held: set[int] = set()


def collect_rarely() -> None:
    """Let the collector look less often while modules are imported, and as usual when that is over.

    It must be: what a server's requests leave behind in circles, frames of a video among it, is held until a look.
    """
    gc.set_threshold(*_WHILE_IMPORTING)
    if _at_a_look not in gc.callbacks:
        gc.callbacks.append(_at_a_look)


def _at_a_look(phase: str, _facts: object) -> None:
    """The collector's callback."""
    global _modules_seen, _imported_at
    if phase != "start":
        return
    if len(sys.modules) != _modules_seen:
        _modules_seen, _imported_at = len(sys.modules), time.monotonic()
    elif time.monotonic() - _imported_at > _QUIET_S:
        gc.set_threshold(*_USUAL)
        gc.callbacks.remove(_at_a_look)


def start() -> None:
    """Make importing quick, and the end of this process; called before anything large is imported.

    What others register with `atexit` later still runs, before the end.
    """
    global _started_in
    collect_rarely()
    if _started_in != os.getpid():
        _started_in = os.getpid()
        atexit.register(_end)


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a program's `main` and end the process with what it returns, or with the code that it exits with."""
    global _exit_code
    start()
    code: object = 1
    try:
        code = main() or 0
    except SystemExit as asked:
        code = asked.code
        raise
    finally:
        # A text is an error's, which Python prints.
        _exit_code = code if isinstance(code, int) else int(code is not None)
    sys.exit(code)


def _end() -> None:
    if _started_in != os.getpid():
        return
    for stream in (sys.stdout, sys.stderr):
        # Whoever read it may be gone, or it was closed.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(_exit_code)


def keep_inherited(*_: object) -> None:
    """Called first in a forked process: what it inherited is never collected there.

    A decoder or scaler of the parent's that becomes garbage in the child would wait for threads that a fork does not
    bring along, for ever.
    """
    gc.freeze()


def worker_pool(num_workers: int | None) -> ProcessPoolExecutor:
    """A pool of forked processes; None is one a core."""
    return ProcessPoolExecutor(num_workers, initializer=keep_inherited)


def lock(descriptor: int) -> None:
    """Take an open file or folder for this process; the system lets go when it is closed or the process ends.

    A forked worker does not keep it: one that outlives its killed parent would hold up the run that goes on.

    Raises:
        BlockingIOError: another process has it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        # Some cluster file systems have no locks: there nobody can be told apart.
        return
    _held.add(descriptor)


def forget(descriptor: int) -> None:
    """Call it before closing what was locked: its number may be another file's then."""
    _held.discard(descriptor)


def _let_go() -> None:
    """A forked process's descriptors share their parent's locks: they become others of nothing, under their numbers."""
    if not _held:
        return
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in _held:
        os.dup2(nothing, descriptor)
    os.close(nothing)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
