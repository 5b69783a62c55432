"""What a family's tower is shown, as tensors by name; samples are put together along axis 0, whatever the tensor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Vision = dict[str, "torch.Tensor"]


def joined(visions: Iterable[Vision]) -> Vision:
    """Several samples' tensors, one sample after another; text alone has none, and adds nothing.

    A family lays its tensors out so that this is right: where pictures differ in size, their patches lie one after
    another beside a tensor of sizes.
    """
    import torch

    shown = [vision for vision in visions if vision]
    return {name: torch.cat([vision[name] for vision in shown]) for name in shown[0]} if shown else {}


def moved(vision: Vision, device: torch.device, dtype: torch.dtype) -> Vision:
    """The tensors on `device`; floating point ones as `dtype`."""
    return {name: tensor.to(device, dtype if tensor.is_floating_point() else None) for name, tensor in vision.items()}
