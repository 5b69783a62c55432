"""Which kernel is tried first, by the GPU that is there."""

from __future__ import annotations

import os

import pytest
import torch
from torch.nn.attention import SDPBackend, _cur_sdpa_kernel_backends

from internvl_chat.model.attention_kernels import fastest_attention


@pytest.mark.parametrize(("capability", "first"), [((9, 0), True), ((8, 0), False), ((10, 0), False), (None, False)])
def test_cudnn_comes_first_on_a_hopper_alone(
    capability: tuple[int, int] | None, first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_CUDNN_SDPA_AVOID_RECOMPILE", "")
    monkeypatch.delenv("TORCH_CUDNN_SDPA_AVOID_RECOMPILE")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    before = _cur_sdpa_kernel_backends(with_priority=True)
    with fastest_attention():
        inside = _cur_sdpa_kernel_backends(with_priority=True)
        assert (inside[0] is SDPBackend.CUDNN_ATTENTION) == first
        assert (os.environ.get("TORCH_CUDNN_SDPA_AVOID_RECOMPILE") == "1") == first
        assert set(inside) >= {SDPBackend.FLASH_ATTENTION, SDPBackend.MATH}
    assert _cur_sdpa_kernel_backends(with_priority=True) == before
