"""Processes that share out work: forked, and kept from freeing what the parent has in memory."""

from __future__ import annotations

import gc
from concurrent.futures import ProcessPoolExecutor


def keep_inherited(*_: object) -> None:
    """Called first in a forked process: what it inherited is never collected there.

    A decoder or scaler of the parent's that becomes garbage in the child would wait for threads that a fork does not
    bring along, for ever.
    """
    gc.freeze()


def worker_pool(num_workers: int | None) -> ProcessPoolExecutor:
    """A pool of forked processes; None is one a core."""
    return ProcessPoolExecutor(num_workers, initializer=keep_inherited)
