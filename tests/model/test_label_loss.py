"""The loss at chosen positions, against a slow float64 twin."""

from __future__ import annotations

import math

import pytest
import torch

from internvl_chat.model import label_loss
from internvl_chat.model.label_loss import LanguageHead

N, D, V = 7, 5, 11


def case(dtype: torch.dtype = torch.float32) -> tuple[LanguageHead, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    head = LanguageHead(D, V).to(dtype)
    with torch.no_grad():
        head.weight.copy_(torch.randn(V, D, generator=generator))
    hidden = torch.randn(N, D, generator=generator, dtype=dtype).requires_grad_()
    targets = torch.randint(V, (N,), generator=generator)
    return head, hidden, targets, torch.rand(N, generator=generator)


def slow_loss(head: LanguageHead, hidden: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> float:
    """Plain Python, float64."""
    total = 0.0
    for row, target, weight in zip(hidden.tolist(), targets.tolist(), weights.tolist(), strict=True):
        logits = [sum(w * h for w, h in zip(ws, row, strict=True)) for ws in head.weight.tolist()]
        total += weight * (math.log(sum(math.exp(value) for value in logits)) - logits[target])
    return total


@pytest.mark.parametrize("chunk", [2, 3, 512])
def test_loss_and_gradients_are_those_of_all_logits_at_once(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_loss, "CHUNK_TOKENS", chunk)
    head, hidden, targets, weights = case()
    loss = head(hidden, targets, weights)
    assert loss.item() == pytest.approx(slow_loss(head, hidden, targets, weights), rel=1e-6)
    (3 * loss).backward()
    got = [hidden.grad, head.weight.grad]
    everything = torch.nn.functional.cross_entropy(head(hidden), targets, reduction="none")
    expected = torch.autograd.grad(3 * (everything * weights).sum(), [hidden, head.weight])
    for gradient, wanted in zip(got, expected, strict=True):
        assert torch.allclose(gradient, wanted, rtol=1e-5, atol=1e-6)


def test_a_frozen_head_asks_for_no_gradient_of_its_own() -> None:
    head, hidden, targets, weights = case()
    head.requires_grad_(False)
    head(hidden, targets, weights).backward()
    assert head.weight.grad is None and hidden.grad is not None


def test_bfloat16_keeps_the_type_of_its_gradients_and_sums_in_float32() -> None:
    head, hidden, targets, weights = case(torch.bfloat16)
    loss = head(hidden, targets, weights)
    assert loss.dtype == torch.float32
    loss.backward()
    assert hidden.grad.dtype == head.weight.grad.dtype == torch.bfloat16
    assert loss.item() == pytest.approx(slow_loss(head, hidden, targets, weights), rel=2e-2)


def test_nothing_supervised_is_no_loss_and_no_error() -> None:
    head, hidden, targets, weights = case()
    loss = head(hidden[:0], targets[:0], weights[:0])
    loss.backward()
    assert loss.item() == 0 and not hidden.grad.any()
