"""RMSNorm by one kernel: the numbers of transformers' norms, in every model that is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers.models.internvl.modeling_internvl import InternVLVisionRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.phi3.modeling_phi3 import Phi3RMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from internvl_chat.model.checkpoint import load_base
from internvl_chat.model.memory.rms_norm import fuse_norms, is_rms_norm
from tests.helpers import tiny_base

ROWS, WIDTH, EPS = (3, 5), 44, 1e-3
NORMS = (Qwen2RMSNorm, Qwen3RMSNorm, LlamaRMSNorm, Phi3RMSNorm, InternVLVisionRMSNorm)


def passed(norm: nn.Module, hidden: torch.Tensor, wanted: torch.Tensor) -> list[torch.Tensor]:
    """What a norm gives, and the gradients of its input and of its weight."""
    given = hidden.clone().requires_grad_()
    output = norm(given)
    return [output, *torch.autograd.grad(output, [given, norm.weight], wanted)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", NORMS)
def test_a_fused_norm_is_transformers_norm(kind: type[nn.Module], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    plain, fused = (kind(WIDTH, eps=EPS) for _ in range(2))
    nn.init.normal_(plain.weight, 1, 0.3)
    fused.load_state_dict(plain.state_dict())
    plain, fused = plain.to(dtype), fused.to(dtype)
    fuse_norms(nn.Sequential(fused))
    assert type(fused) is not kind and isinstance(fused, kind) and type(fused).__name__ == kind.__name__
    # A hundredth's rows are small beside eps, a hundred's large.
    hidden = torch.randn(*ROWS, WIDTH) * torch.tensor([0.01, 1, 100])[:, None, None]
    hidden, wanted = hidden.to(dtype), torch.randn(*ROWS, WIDTH).to(dtype)
    output, *gradients = passed(fused, hidden, wanted)
    of_plain, *gradients_of_plain = passed(plain, hidden, wanted)
    assert torch.equal(output, of_plain)
    for found, expected in zip(gradients, gradients_of_plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5 if dtype == torch.float32 else 2e-2, atol=1e-6)


def test_under_autocast_the_dtype_stays() -> None:
    fused = nn.Sequential(Qwen2RMSNorm(WIDTH))
    fuse_norms(fused)
    with torch.autocast("cpu", torch.bfloat16):
        assert fused.to(torch.bfloat16)(torch.ones(2, WIDTH, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_second_time_changes_nothing() -> None:
    fused = nn.Sequential(Qwen2RMSNorm(WIDTH), nn.LayerNorm(WIDTH))
    fuse_norms(fused)
    kinds = [type(module) for module in fused]
    fuse_norms(fused)
    assert [type(module) for module in fused] == kinds and kinds[1] is nn.LayerNorm


def test_a_loaded_models_norms_are_fused(tmp_path: Path) -> None:
    tiny_base().save_pretrained(tmp_path)
    model = load_base(str(tmp_path), num_adapter_layers=1, dtype=torch.float32)
    norms = [module for module in model.modules() if is_rms_norm(module)]
    assert len(norms) > 4
    calls: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.nn.functional.rms_norm", lambda hidden, *_: calls.append(1) or hidden)
        for norm in norms:
            norm(torch.ones(2, len(norm.weight)))
    assert len(calls) == len(norms)
