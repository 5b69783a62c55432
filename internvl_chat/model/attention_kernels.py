"""Which fused attention kernel torch takes first on this GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

_HOPPER = (9, 0)
# In the order in which they are tried; each is left out where it cannot serve a call.
_ON_HOPPER = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
# Passes differ in length: without it cuDNN would make a plan for each of them.
_ONE_PLAN = "TORCH_CUDNN_SDPA_AVOID_RECOMPILE"


@contextmanager
def fastest_attention() -> Iterator[None]:
    """On a Hopper cuDNN's attention comes before FlashAttention 2, which was made for the GPUs before it."""
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() != _HOPPER:
        yield
        return
    os.environ.setdefault(_ONE_PLAN, "1")
    with sdpa_kernel(_ON_HOPPER, set_priority=True):
        yield
