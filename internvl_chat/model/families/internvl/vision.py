"""InternViT with a box adapter after each of its last layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, InternVLVisionModel
from transformers.models.internvl.modeling_internvl import InternVLVisionModelOutputWithPooling

from internvl_chat.model.controls.box_adapter import (
    BoxAdapter,
    ChannelRMSNorm,
    SpatialRMSNorm,
    init_added,
)
from internvl_chat.model.families.internvl.configuration import IntentVCNetVisionConfig


class IntentVCNetVisionModel(InternVLVisionModel):
    """The native InternViT; with boxes, its last `num_adapter_layers` layers are each followed by a box adapter."""

    config_class = IntentVCNetVisionConfig

    def __init__(self, config: IntentVCNetVisionConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        make_norm: Callable[[], nn.Module] = partial(ChannelRMSNorm, width)
        if config.adapter_norm == "spatial":
            make_norm = partial(SpatialRMSNorm, self.embeddings.patch_embeddings.num_patches)
        self.box_adapters = nn.ModuleList(BoxAdapter(width, make_norm) for _ in range(config.num_adapter_layers))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if not init_added(module):
            super()._init_weights(module)

    def forward(
        self,
        pixel_values: torch.Tensor,
        bool_masked_pos: torch.Tensor | None = None,
        boxes: torch.Tensor | None = None,
        trunk: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> InternVLVisionModelOutputWithPooling:
        """Encode frames; without boxes this is the plain InternViT.

        Args:
            pixel_values: [F, 3, S, S].
            boxes: [F, 4], x1 y1 x2 y2 in thousandths of the side; all zero = absent.
            trunk: [F, 1 + N, C], what `trunk` gave for these frames, where it is known; used with boxes only.
        Returns:
            `last_hidden_state` is [F, 1 + N, C], the class token first.
        """
        if boxes is None or not self.box_adapters:
            with self._autograd_where_needed(pixel_values, self):
                return super().forward(pixel_values, bool_masked_pos=bool_masked_pos, **kwargs)

        patch_height, patch_width = self.embeddings.patch_size
        grid_HW = (pixel_values.shape[-2] // patch_height, pixel_values.shape[-1] // patch_width)
        hidden = self.trunk(pixel_values, bool_masked_pos) if trunk is None else trunk
        return self.adapt(hidden, boxes, grid_HW)

    @property
    def _num_trunk_layers(self) -> int:
        """The layers before the first adapter, the one that it follows among them."""
        return len(self.encoder.layer) - len(self.box_adapters) + 1

    @staticmethod
    def _autograd_where_needed(pixel_values: torch.Tensor, *parts: nn.Module) -> torch.set_grad_enabled:
        needed = pixel_values.requires_grad or any(p.requires_grad for part in parts for p in part.parameters())
        return torch.set_grad_enabled(needed and torch.is_grad_enabled())

    def trunk(self, pixel_values: torch.Tensor, bool_masked_pos: torch.Tensor | None = None) -> torch.Tensor:
        """Tokens [F, 1 + N, C] as the first adapter meets them: what does not depend on any box.

        Where nothing of it is trained it runs without autograd state, so that it is never recomputed either.
        """
        layers = self.encoder.layer[: self._num_trunk_layers]
        with self._autograd_where_needed(pixel_values, self.embeddings, layers):
            hidden = self.embeddings(pixel_values, bool_masked_pos=bool_masked_pos)
            for layer in layers:
                hidden = layer(hidden)
        return hidden

    def adapt(
        self, hidden: torch.Tensor, boxes: torch.Tensor, grid_HW: tuple[int, int]
    ) -> InternVLVisionModelOutputWithPooling:
        """From the trunk's tokens [F, 1 + N, C] to the tower's output, with one box [F, 4] a frame."""
        rest = self.encoder.layer[self._num_trunk_layers :]
        for adapter, layer in zip(self.box_adapters, [*rest, None], strict=True):
            hidden = torch.cat([hidden[:, :1], adapter(hidden[:, 1:], boxes, grid_HW)], dim=1)
            if layer is not None:
                hidden = layer(hidden)
        return InternVLVisionModelOutputWithPooling(last_hidden_state=self.layernorm(hidden))


AutoModel.register(IntentVCNetVisionConfig, IntentVCNetVisionModel)
