"""Stochastic depth of the ViT while it trains: some frames go past a layer's attention or MLP."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.ops import StochasticDepth
from transformers import PreTrainedModel


def use_stochastic_depth(model: PreTrainedModel, rate: float) -> None:
    """Skip the branches of the ViT's layers for some frames, the later the layer the more often.

    What is not skipped is scaled up, so that the expectation stays. The layers' own slots for dropout are used, which
    InternVL leaves empty: behind them stand a scale per channel and the residual sum, and nothing else.

    Args:
        rate: share of the frames that skip a branch of the last layer, 0 to below 1; it falls linearly to 0 at the
            first. A frozen ViT is subject to it too, as in InternVL's own training.
    Raises:
        ValueError: the model's configuration asks for dropout in the same places.
    Source: InternViT's `drop_path_rate`; Huang et al., arXiv 1603.09382, by row.
    """
    if not rate:
        return
    layers = model.model.vision_tower.encoder.layer
    for layer, share in zip(layers, torch.linspace(0, rate, len(layers)).tolist(), strict=True):
        if getattr(layer.attention.projection_dropout, "p", 0.0) or layer.dropout.p:
            raise ValueError("stochastic depth takes the places of the ViT's own dropout, which is not 0")
        skip: nn.Module = StochasticDepth(share, mode="row").train(layer.training)
        layer.attention.projection_dropout = layer.dropout = skip
