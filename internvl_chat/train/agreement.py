"""Ranks that decide together: where a run goes on, and how much it recomputes, is the same on all of them.

A rank that decided alone would wait for the others, or they for it, until a collective times out. Here what cannot be
used on one rank ends all of them, with one message.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import gather_object

from internvl_chat.contracts import UserError
from internvl_chat.model.checkpoint import can_go_on_from

_T = TypeVar("_T")


def found_by_ranks(find: Callable[[], _T]) -> list[_T]:
    """What each rank finds, in their order, on every rank.

    Raises:
        UserError: in a single process, what `find` raised. Of several ranks the first says it for all, and all end.
    """
    try:
        mine, fault = [find()], None
    except UserError as error:
        mine, fault = [], str(error)
    found, faults = gather_object(mine), gather_object([fault])
    broken = [rank for rank, one in enumerate(faults) if one is not None]
    if broken:
        _end_all(faults[broken[0]], broken)
    return found


def agreed_checkpoint(choose: Callable[[], Path | None]) -> Path | None:
    """The checkpoint that the first rank goes on from, once every rank has seen that it is whole.

    Raises:
        UserError: see `found_by_ranks`.
    """
    chosen = found_by_ranks(lambda: choose() if PartialState().is_main_process else None)[0]
    seen = found_by_ranks(lambda: (chosen is None or can_go_on_from(chosen), socket.gethostname()))
    blind = [rank for rank, (sees, _) in enumerate(seen) if not sees]
    if blind:
        hosts = ", ".join(sorted({seen[rank][1] for rank in blind}))
        _end_all(
            f"{chosen}: rank 0 goes on from this checkpoint, but it is not there, or not whole, on {hosts}: "
            "--output_dir must be a folder that all nodes share",
            blind,
        )
    return chosen


def _end_all(message: str, ranks: list[int]) -> None:
    state = PartialState()
    if state.num_processes == 1:
        raise UserError(message)
    if state.is_main_process:
        named = ", ".join(map(str, ranks))
        sys.stderr.write(f"error: {message} (said by rank{'s' * (len(ranks) > 1)} {named})\n")
    # Whoever left first would have the launcher end the first rank before it has said so.
    state.wait_for_everyone()
    sys.exit(1)
