"""LoRA's output added onto the layer's own, against PEFT's operators and a plain product in float64."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from benchmarks.counting import Launches
from internvl_chat.model.memory.lora_sum import _AddedProduct, sum_in_place

INPUTS, OUTPUTS, RANK, ROWS = 6, 10, 3, (2, 5)


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(INPUTS, OUTPUTS)
        self.head = nn.Linear(OUTPUTS, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.wide(x)))


def model_of(dtype: torch.dtype, dropout: float = 0.0, prepare: Callable[[nn.Module], None] | None = None) -> nn.Module:
    torch.manual_seed(3)
    config = LoraConfig(r=RANK, lora_alpha=5, lora_dropout=dropout, target_modules="wide|head")
    model = get_peft_model(_Model().to(dtype), config, autocast_adapter_dtype=False)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter)
    if prepare:
        prepare(model)
    return model


def passed(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """The output, and the gradients of what is trained and of the input."""
    x = x.clone().requires_grad_()
    torch.manual_seed(7)
    out = model(x)
    out.float().pow(2).sum().backward()
    return [out.detach(), x.grad, *(p.grad for p in model.parameters() if p.requires_grad)]


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_equals_peft(dtype: torch.dtype, dropout: float) -> None:
    x = torch.randn(*ROWS, INPUTS, generator=torch.Generator().manual_seed(1)).to(dtype)
    theirs, ours = (passed(model_of(dtype, dropout, prepare), x) for prepare in (None, sum_in_place))
    exact = passed(model_of(torch.float64, 0.0), x.double())
    for expected, got, true in zip(theirs, ours, exact, strict=True):
        if dtype == torch.float64:
            torch.testing.assert_close(got, expected)
        elif not dropout:
            error, usual = ((value.double() - true).norm() / true.norm() for value in (got, expected))
            assert error <= 1.2 * usual + 1e-3


def test_gradients() -> None:
    generator = torch.Generator().manual_seed(2)
    result, narrow, weight = (
        torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in ((*ROWS, OUTPUTS), (*ROWS, RANK), (OUTPUTS, RANK))
    )
    added = _AddedProduct.apply(result.clone(), narrow, weight)
    torch.testing.assert_close(added, result + narrow @ weight.t())
    assert torch.autograd.gradcheck(lambda r, n, w: _AddedProduct.apply(r * 1, n, w), (result, narrow, weight))


def test_kernels() -> None:
    x = torch.randn(*ROWS, INPUTS)
    counts = []
    for prepare in (None, sum_in_place):
        model = model_of(torch.float32, 0.0, prepare)
        with Launches() as launches:
            passed(model, x)
        counts.append(launches.kernels)
    # A sum a layer in the forward pass.
    assert counts[1] == counts[0] - 2


@pytest.mark.parametrize("safe", [False, True])
def test_folds_as_without_it(safe: bool) -> None:
    x = torch.randn(*ROWS, INPUTS, dtype=torch.float64)
    model = model_of(torch.float64, 0.0, sum_in_place)
    expected = model(x)
    model.merge_adapter(safe_merge=safe)  # type: ignore[operator]
    torch.testing.assert_close(model(x), expected)
    model.unmerge_adapter()  # type: ignore[operator]
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(model.merge_and_unload(safe_merge=safe)(x), expected)  # type: ignore[operator]


@pytest.mark.parametrize("away", ["disabled", "autocast"])
def test_other_ways_of_peft(away: str) -> None:
    x = torch.randn(*ROWS, INPUTS, generator=torch.Generator().manual_seed(1))
    outputs = []
    for prepare in (None, sum_in_place):
        model = model_of(torch.float32, 0.0, prepare)
        context = model.disable_adapter() if away == "disabled" else torch.autocast("cpu", dtype=torch.bfloat16)  # type: ignore[operator]
        with context, torch.no_grad() if away == "disabled" else nullcontext():
            outputs.append(model(x).float())
    torch.testing.assert_close(outputs[0], outputs[1], rtol=2e-2, atol=2e-2)
