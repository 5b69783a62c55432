"""Forked processes: kept from freeing what the parent has in memory, and from keeping its locks when it is gone."""

from __future__ import annotations

import fcntl
import gc
import os
from concurrent.futures import ProcessPoolExecutor

_held: set[int] = set()


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
