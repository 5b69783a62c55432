"""RMSNorm by PyTorch's own kernel: one pass over what it is given, where transformers' norms make seven in float32.

The weight is multiplied behind the kernel and not in it: so what is normed is rounded to the model's dtype first, as
transformers rounds it, and the numbers are the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import nn


def rms_norm(hidden: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """RMSNorm over the last axis, computed in at least float32.

    Args:
        hidden: [..., C].
        weight: [C].
    Returns:
        [..., C], as transformers' norms of the Llama line have it.
    """
    # autocast would hand out float32.
    return weight * nnf.rms_norm(hidden, hidden.shape[-1:], None, eps).to(hidden.dtype)


class _FusedNorm:
    """Mixed into the class of a norm of transformers' Llama line."""

    weight: nn.Parameter
    variance_epsilon: float

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return rms_norm(hidden_states, self.weight, self.variance_epsilon)


def is_rms_norm(module: nn.Module) -> bool:
    """Whether this is a norm of transformers' Llama line, whatever the model it was copied to calls it."""
    return hasattr(module, "weight") and hasattr(module, "variance_epsilon")


def fuse_norms(model: nn.Module) -> None:
    """Let every such norm of a model run as one kernel."""
    for module in model.modules():
        if is_rms_norm(module) and not isinstance(module, _FusedNorm):
            module.__class__ = type(type(module).__name__, (_FusedNorm, type(module)), {})
