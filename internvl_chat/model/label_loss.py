"""The language head: logits, or the loss at chosen positions without ever holding the logits of all of them.

Shape letters: N supervised tokens, D the language model's width, V the vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

# Logits of this many tokens exist at a time: 20 MB in float32 for a vocabulary of 150,000; on a GPU 310 MB, since each
# chunk reads the whole head.
CHUNK_TOKENS, GPU_CHUNK_TOKENS = 32, 512


class _WeightedCrossEntropy(torch.autograd.Function):
    """Sum of weighted cross-entropies; gradients are taken chunk by chunk on the way forward."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: torch.Tensor, weight_VD: torch.Tensor, target_ids_N: torch.Tensor, weights_N: torch.Tensor
    ) -> torch.Tensor:
        needs_hidden, needs_weight, *_ = ctx.needs_input_grad
        grad_hidden = torch.empty_like(hidden_ND) if needs_hidden else None
        grad_weight = torch.zeros_like(weight_VD, dtype=torch.float32) if needs_weight else None
        total = hidden_ND.new_zeros((), dtype=torch.float32)
        chunk = GPU_CHUNK_TOKENS if hidden_ND.is_cuda else CHUNK_TOKENS
        for start in range(0, len(hidden_ND), chunk):
            rows = slice(start, start + chunk)
            hidden, targets, weights = hidden_ND[rows], target_ids_N[rows, None], weights_N[rows]
            logits = (hidden @ weight_VD.T).float()
            log_probs = logits.sub_(logits.logsumexp(-1, keepdim=True))
            total -= (log_probs.gather(1, targets)[:, 0] * weights).sum()
            if grad_hidden is None and grad_weight is None:
                continue
            grad_logits = log_probs.exp_().scatter_add_(1, targets, -torch.ones_like(targets, dtype=torch.float32))
            grad_logits = grad_logits.mul_(weights[:, None]).to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[rows] = grad_logits @ weight_VD
            if grad_weight is not None:
                grad_weight += grad_logits.T @ hidden
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight_VD.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad_total: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        if grad_hidden is not None:
            grad_hidden = grad_hidden * grad_total.to(grad_hidden.dtype)
        if grad_weight is not None:
            grad_weight = (grad_weight * grad_total).to(ctx.weight_dtype)
        return grad_hidden, grad_weight, None, None


class LanguageHead(nn.Linear):
    """The head without bias; with targets it gives their loss in place of logits.

    The loss is taken inside this module so that ZeRO-3 gathers its weight once, whatever the number of tokens.
    """

    def __init__(self, hidden_size: int, vocab_size: int) -> None:
        super().__init__(hidden_size, vocab_size, bias=False)

    def forward(
        self,
        hidden: torch.Tensor,
        target_ids: torch.Tensor | None = None,
        loss_weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits [..., V]; or, with targets, the weighted sum of the cross-entropies, a float32 scalar.

        Args:
            hidden: [..., D]; with targets [N, D].
            target_ids, loss_weights: [N].
        """
        if target_ids is None or loss_weights is None:
            return super().forward(hidden)
        return _WeightedCrossEntropy.apply(hidden, self.weight, target_ids, loss_weights)
