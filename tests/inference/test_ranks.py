"""Ranks that wait for each other, and ranks without a GPU of their own."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from torch import distributed

from internvl_chat.contracts import UserError
from internvl_chat.inference.ranks import Attendance, Ranks, chosen_dtype


def test_ranks_that_are_waited_for_are_named_by_one_of_those_that_wait() -> None:
    store, said = distributed.HashStore(), {rank: list[str]() for rank in range(4)}

    def meet(rank: int, late_s: float) -> None:
        time.sleep(late_s)
        attendance = Attendance(store, said[rank].append, every_s=0.1)
        attendance.wait(rank, 4)

    late = {0: 0.6, 1: 0.0, 2: 0.0, 3: 0.6}
    threads = [threading.Thread(target=meet, args=one) for one in late.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert said[1] and all(line.startswith("waiting for ranks 0, 3 for 0.0 minutes") for line in said[1])
    assert said[2] == said[3] == []


class Gpus:
    """What a machine with so many GPUs answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.chosen: list[int] = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        monkeypatch.setattr(torch.cuda, "set_device", self.chosen.append)


def test_a_rank_opens_its_own_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = Gpus(monkeypatch, 3)
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert Ranks.join().device == torch.device("cuda", 2)
    assert gpus.chosen == [2]


def test_more_ranks_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = Gpus(monkeypatch, 3)
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(UserError, match="rank 3 of this machine has no GPU: 3 are visible"):
        Ranks.join()
    assert gpus.chosen == []


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_weights_are_in_what_the_device_computes_in(has_bfloat16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "V100")
    assert chosen_dtype("auto", gpu) == (torch.bfloat16 if has_bfloat16 else torch.float16)
    assert chosen_dtype("float16", gpu) == torch.float16
    assert chosen_dtype("auto", cpu) == torch.float32 and chosen_dtype("bfloat16", cpu) == torch.bfloat16
    with pytest.raises(UserError, match="float16 is for GPUs"):
        Ranks.join("float16")
    if not has_bfloat16:
        with pytest.raises(UserError, match="V100 has no bfloat16 of its own: choose float16 or float32"):
            chosen_dtype("bfloat16", gpu)
