"""One process or many under torchrun: who this one is, and what all of them know."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

_T = TypeVar("_T")


@dataclass(frozen=True)
class Ranks:
    """This process among those that work together; `local_rank` counts on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @staticmethod
    def join() -> Ranks:
        """The ranks that torchrun started, or a single one."""
        ranks = Ranks(*(int(os.environ.get(name, value)) for name, value in _ENVIRONMENT.items()))
        if ranks.size > 1 and not distributed.is_initialized():
            # Ranks meet at the end only, and the last may come hours after the first.
            distributed.init_process_group("gloo", timeout=timedelta(days=7))
        return ranks

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """What models are loaded in on this device."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def gathered(self, mine: _T) -> list[_T]:
        """What each rank gave, in their order, on every rank."""
        if self.size == 1:
            return [mine]
        everyones: list[Any] = [None] * self.size
        distributed.all_gather_object(everyones, mine)
        return everyones

    def leave(self) -> None:
        """Part from the other ranks."""
        if self.size > 1:
            distributed.destroy_process_group()


ALONE = Ranks()
_ENVIRONMENT = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}
