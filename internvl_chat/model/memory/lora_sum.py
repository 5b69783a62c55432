"""What LoRA gives, added by the product that makes it: no tensor of an output's size is written in between.

PEFT computes W x + scale (B A x) operator by operator: B's product, its scaling and the sum each write a tensor as wide
as the output, and the scaling does so again in the backward pass. Here the scale is on A x, which is as narrow as the
rank, and B's product adds onto W x where that lies: of ten bytes an element of the output and four in the backward
pass, two are left. A sum that was rounded twice is rounded once.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.lora.layer import LoraVariant
from torch import nn
from torch.autograd.function import once_differentiable


class _AddedProduct(torch.autograd.Function):
    """result [..., N] + narrow [..., R] weight^T [R, N], written where the result lies."""

    @staticmethod
    def forward(ctx: Any, result: torch.Tensor, narrow: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(narrow, weight)
        rows = result.detach().reshape(-1, result.shape[-1])
        return rows.addmm_(narrow.reshape(-1, narrow.shape[-1]), weight.t()).view(result.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        narrow, weight = ctx.saved_tensors
        rows = gradient.reshape(-1, gradient.shape[-1])
        of_narrow = (rows @ weight).view(narrow.shape) if ctx.needs_input_grad[1] else None
        of_weight = rows.t() @ narrow.reshape(-1, narrow.shape[-1]) if ctx.needs_input_grad[2] else None
        return gradient, of_narrow, of_weight


class _AddingLinear(nn.Linear):
    """LoRA's second matrix; called as a module, so that whoever gathers weights for a module (ZeRO-3) gathers its."""

    def forward(self, input: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
        """The product of input [..., R], added onto a tensor [..., N] that nobody else needs, where one is given."""
        if onto is None:
            return super().forward(input)
        # autocast has cast the input, and does not reach into the function.
        return _AddedProduct.apply(onto, input, self.weight.to(input.dtype))


class _SummedInPlace(LoraVariant):
    """PEFT's hook for another way to compute LoRA."""

    @staticmethod
    def forward(
        module: LoraLinear, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **_: Any
    ) -> torch.Tensor:
        narrow = module.lora_A[active_adapter](module.lora_dropout[active_adapter](x)) * module.scaling[active_adapter]
        added: torch.Tensor = module.lora_B[active_adapter](narrow, result)
        return added

    # Folding is as without the hook: PEFT leaves it to whoever takes it, and its defaults would fold nothing.
    @staticmethod
    def merge_safe(module: LoraLinear, active_adapter: str, orig_weight: torch.Tensor) -> torch.Tensor:
        return orig_weight + module.get_delta_weight(active_adapter)

    @staticmethod
    def merge_unsafe(module: LoraLinear, active_adapter: str, orig_weight: torch.Tensor) -> None:
        orig_weight.data += module.get_delta_weight(active_adapter)

    @staticmethod
    def unmerge(module: LoraLinear, active_adapter: str, orig_weight: torch.Tensor) -> torch.Tensor:
        return orig_weight - module.get_delta_weight(active_adapter)


def sum_in_place(model: nn.Module) -> None:
    """Let every LoRA that PEFT put onto a linear layer of a model add its output onto the layer's own."""
    for module in model.modules():
        if isinstance(module, LoraLinear) and isinstance(module.get_base_layer(), nn.Linear):
            for name, second in module.lora_B.items():
                if name in module.lora_variant or second.bias is not None:
                    continue
                second.__class__ = _AddingLinear
                module.lora_variant[name] = _SummedInPlace()
