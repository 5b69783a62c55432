"""Stochastic depth of the ViT while it trains: some frames go past a layer's attention or MLP."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.ops import StochasticDepth
from transformers import PreTrainedModel

from internvl_chat.contracts import UserError
from internvl_chat.families import family_of


def use_stochastic_depth(model: PreTrainedModel, rate: float) -> None:
    """Skip the branches of the ViT's layers for some frames, the later the layer the more often.

    What is not skipped is scaled up, so that the expectation stays. The layers' own slots for dropout are used, where
    the family leaves them empty and nothing stands behind them that would be skipped too (`DROP_SLOTS`).

    Args:
        rate: share of the frames that skip a branch of the last layer, 0 to below 1; it falls linearly to 0 at the
            first. A frozen ViT is subject to it too, as in InternVL's own training.
    Raises:
        UserError: the family's ViT has no such slots.
        ValueError: the model's configuration asks for dropout in the same places.
    Source: InternViT's `drop_path_rate`; Huang et al., arXiv 1603.09382, by row.
    """
    if not rate:
        return
    parts = family_of(model.config).parts
    if not parts.DROP_SLOTS:
        raise UserError(f"--drop_path_rate {rate}: this model's ViT has no place for it; expected 0")
    layers = model.model.get_submodule(f"{parts.NAMES.tower}.{parts.NAMES.tower_layers}")
    for layer, share in zip(layers, torch.linspace(0, rate, len(layers)).tolist(), strict=True):
        skip: nn.Module = StochasticDepth(share, mode="row").train(layer.training)
        for slot in parts.DROP_SLOTS:
            if getattr(layer.get_submodule(slot), "p", 0.0):
                raise ValueError("stochastic depth takes the places of the ViT's own dropout, which is not 0")
            layer.set_submodule(slot, skip)
