"""Attention of few rows to many keys that several heads share: no key is repeated, and scores are never rounded.

A half-precision product of queries and keys keeps eight bits of a score; key biases make scores of hundreds, whose
rounding then decides the softmax. Fused kernels keep scores in float32, and so does this. Where rows are few (new
tokens, answers) the scores are small, and their plain products take any mask.

Shape letters: B batch, H heads, G key and value heads, n = H / G, R rows, S keys, D a head's width.
"""

from __future__ import annotations

from typing import Any

import torch


def exact_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """[B, G, R, X] @ [B, G, X, S], added up and kept in float32 where the operands have less."""
    if torch.is_autocast_enabled(left.device.type):
        # It would round the product of float32 operands, in the forward pass alone.
        with torch.autocast(left.device.type, enabled=False):
            return exact_product(left, right)
    if left.dtype.itemsize >= torch.float32.itemsize:
        return left @ right
    if left.is_cuda:
        product = torch.bmm(left.flatten(0, 1), right.flatten(0, 1), out_dtype=torch.float32)
        return product.unflatten(0, left.shape[:2])
    return left.float() @ right.float()


class _GroupedAttention(torch.autograd.Function):
    """Keeps its operands, its output and a number a row for the backward pass, which takes the scores again."""

    @staticmethod
    def forward(
        ctx: Any,
        query_BGRD: torch.Tensor,
        key_BGSD: torch.Tensor,
        value_BGSD: torch.Tensor,
        hidden_RS: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        scores = _scores(query_BGRD, key_BGSD, hidden_RS, scaling)
        log_sums = scores.logsumexp(-1, keepdim=True)
        output = scores.sub_(log_sums).exp_().to(value_BGSD.dtype) @ value_BGSD
        ctx.save_for_backward(query_BGRD, key_BGSD, value_BGSD, hidden_RS, log_sums, output)
        ctx.scaling = scaling
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, hidden, log_sums, output = ctx.saved_tensors
        shares = _scores(query, key, hidden, ctx.scaling).sub_(log_sums).exp_()
        grad_value = shares.to(value.dtype).transpose(-1, -2) @ grad_output
        along_output = (grad_output.to(shares.dtype) * output).sum(-1, keepdim=True)
        grad_shares = exact_product(grad_output, value.transpose(-1, -2))
        grad_scores = grad_shares.sub_(along_output).mul_(shares).mul_(ctx.scaling).to(query.dtype)
        return grad_scores @ key, grad_scores.transpose(-1, -2) @ query, grad_value, None, None


def _scores(query: torch.Tensor, key: torch.Tensor, hidden_RS: torch.Tensor, scaling: float) -> torch.Tensor:
    scores = exact_product(query, key.transpose(-1, -2)).mul_(scaling)
    rest = query.shape[2] // len(hidden_RS)
    scores.unflatten(2, (rest, len(hidden_RS))).masked_fill_(hidden_RS, -torch.inf)
    return scores


def grouped_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Softmax attention.

    Args:
        query: [B, H, R, D].
        key, value: [B, G, S, D]; H / G heads side by side share one of G.
        mask: [R, S] bool, True where a row sees a key; each row sees one at least.
    Returns:
        [B, H, R, D].
    """
    num_groups, num_rows = key.shape[1], query.shape[2]
    rows = query.unflatten(1, (num_groups, -1)).flatten(2, 3)
    attended = _GroupedAttention.apply(rows, key, value, ~mask, scaling)
    return attended.unflatten(2, (-1, num_rows)).flatten(1, 2)
