"""One process or many under torchrun: who this one is, and what all of them know."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any, TypeVar

import torch
from torch import distributed

from internvl_chat.choices import Precision
from internvl_chat.contracts import UserError

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_LONGEST_WAIT = timedelta(days=7)
_FIRST_LOOK_S, _LAST_LOOK_S = 0.01, 2.0


def check_local_rank(local_rank: int) -> None:
    """See to it that there is a GPU for this rank, where there are GPUs at all.

    Raises:
        UserError: there are fewer.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and local_rank >= gpus:
        raise UserError(
            f"rank {local_rank} of this machine has no GPU: {gpus} are visible; start as many processes "
            f"(GPUS={gpus}, or --nproc_per_node {gpus}), or show more by CUDA_VISIBLE_DEVICES"
        )


def chosen_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of a name on a device; `auto` is bfloat16 on a GPU that has it, float16 on others, float32 on a CPU.

    Raises:
        UserError: the device does not compute in it.
    """
    if device.type != "cuda":
        if precision == "float16":
            raise UserError("float16 is for GPUs: on a CPU choose float32, or bfloat16")
        return torch.float32 if precision == "auto" else getattr(torch, precision)
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "auto":
        return torch.bfloat16 if has_bfloat16 else torch.float16
    if precision == "bfloat16" and not has_bfloat16:
        raise UserError(
            f"{torch.cuda.get_device_name(device)} has no bfloat16 of its own: choose float16 or float32 (in training: "
            "--bf16 False, with or without --fp16 True)"
        )
    return getattr(torch, precision)


class Attendance:
    """Which ranks have come to a meeting, so that those that wait can tell for whom.

    Args:
        store: that all ranks share.
        tell: says it.
        every_s: how often.
    """

    def __init__(
        self, store: distributed.Store, tell: Callable[[str], None] = logger.warning, every_s: float = 300.0
    ) -> None:
        self._store, self._tell, self._every_s = store, tell, every_s
        self._meetings = count()

    def wait(self, rank: int, size: int) -> None:
        """Come to the next meeting, and wait for the others; the first of those present names who is missing."""
        meeting = next(self._meetings)
        self._store.set(f"{meeting}/{rank}", "here")
        started = told = time.monotonic()
        pause_s = _FIRST_LOOK_S
        while missing := [other for other in range(size) if not self._store.check([f"{meeting}/{other}"])]:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LAST_LOOK_S)
            speaks = all(other in missing for other in range(rank))
            if speaks and time.monotonic() - told >= self._every_s:
                told = time.monotonic()
                self._tell(f"waiting for ranks {', '.join(map(str, missing))} for {(told - started) / 60:.1f} minutes")


@dataclass(frozen=True)
class Ranks:
    """This process among those that work together; `local_rank` counts on its machine, `precision` is the weights'."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    precision: Precision = "auto"
    attendance: Attendance | None = field(default=None, compare=False, repr=False)

    @staticmethod
    def join(precision: Precision = "auto") -> Ranks:
        """The ranks that torchrun started, or a single one.

        Raises:
            UserError: this machine has fewer GPUs than ranks, or does not compute in this precision.
        """
        rank, size, local_rank = (int(os.environ.get(name, value)) for name, value in _ENVIRONMENT.items())
        check_local_rank(local_rank)
        if torch.cuda.is_available():
            # Whoever asks for the current device would else open the first one, half a gigabyte a rank.
            torch.cuda.set_device(local_rank)
        attendance = None
        if size > 1 and not distributed.is_initialized():
            store, *_ = next(distributed.rendezvous("env://"))
            # Ranks meet at the end only, and the last may come hours after the first.
            distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=_LONGEST_WAIT)
            attendance = Attendance(distributed.PrefixStore("attendance", store))
        ranks = Ranks(rank, size, local_rank, precision, attendance)
        if precision != "auto":
            chosen_dtype(precision, ranks.device)
        return ranks

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """What models are loaded in on this device."""
        return chosen_dtype(self.precision, self.device)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def gathered(self, mine: _T) -> list[_T]:
        """What each rank gave, in their order, on every rank."""
        if self.size == 1:
            return [mine]
        if self.attendance:
            self.attendance.wait(self.rank, self.size)
        everyones: list[Any] = [None] * self.size
        distributed.all_gather_object(everyones, mine)
        return everyones

    def leave(self) -> None:
        """Part from the other ranks when all are done: torchrun ends the others where one exits with a fault's code."""
        if self.size > 1:
            self.gathered(None)
            distributed.destroy_process_group()


ALONE = Ranks()
_ENVIRONMENT = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}
