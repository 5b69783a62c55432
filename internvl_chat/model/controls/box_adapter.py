"""The box adapter: every patch of a frame attends to the cells inside that frame's box.

Shape letters: F frames, C channels, H and W the patch grid, N = H * W patches, R = 49 RoI cells.
Source: IntentVCNet, arXiv 2507.18531, with four corrections: the norm runs over channels, both branches are zero at
the start, nothing is written in place, and a frame without a box is left as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as nnf
from torchvision.ops import roi_align
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from internvl_chat.constants import BOX_SCALE
from internvl_chat.model.memory.rms_norm import rms_norm

ROI_CELLS = 7


class FanInLinear(nn.Linear):
    """A linear layer of the adapter; its model draws the weights with variance 1 / fan-in, whatever the ViT's width."""

    @property
    def fan_in(self) -> int:
        return self.in_features


class FanInConv2d(nn.Conv2d):
    """A convolution of the adapter, initialised like `FanInLinear`."""

    @property
    def fan_in(self) -> int:
        return self.in_channels // self.groups * math.prod(self.kernel_size)


class ZeroInitLinear(nn.Linear):
    """The last layer of a branch: its model zeroes it, so that the branch starts by adding nothing."""


class ChannelRMSNorm(nn.Module):
    """RMSNorm over the last axis, the channels, computed in at least fp32."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.eps = eps

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return rms_norm(tokens, self.weight, self.eps)


class SpatialRMSNorm(ChannelRMSNorm):
    """RMSNorm over the patches of each channel, one weight a patch: what weights of the original code expect."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().forward(tokens.transpose(1, 2)).transpose(1, 2)


@torch.no_grad()
def init_added(module: nn.Module) -> bool:
    """Initialise a layer of a control, if it is one: the part of `_init_weights` that is the controls'.

    There and not in a constructor: under ZeRO-3 a constructor sees empty shards, and weights that a checkpoint lacks
    are only ever initialised by that method.
    """
    if isinstance(module, (FanInLinear, FanInConv2d)):
        init.normal_(module.weight, mean=0.0, std=module.fan_in**-0.5)
    elif isinstance(module, ZeroInitLinear):
        init.zeros_(module.weight)
    elif isinstance(module, ChannelRMSNorm):
        init.ones_(module.weight)
        return True
    else:
        return False
    if module.bias is not None:
        init.zeros_(module.bias)
    return True


def boxes_present(boxes_F4: torch.Tensor) -> torch.Tensor:
    """Which boxes have an area, [F] bool; a box without one says that the object is absent."""
    return (boxes_F4[:, 2] > boxes_F4[:, 0]) & (boxes_F4[:, 3] > boxes_F4[:, 1])


def roi_cells(tokens_FCHW: torch.Tensor, boxes_F4: torch.Tensor) -> torch.Tensor:
    """RoIAlign of each frame's box, in at least fp32.

    Args:
        tokens_FCHW: feature map.
        boxes_F4: x1 y1 x2 y2 in thousandths of the side.
    Returns:
        [F, C, 7, 7], same dtype as the tokens.
    """
    num_frames, _, height, width = tokens_FCHW.shape
    wide = tokens_FCHW.to(torch.promote_types(tokens_FCHW.dtype, torch.float32))
    cells_per_box = wide.new_tensor([width, height, width, height]) / BOX_SCALE
    frame_numbers = torch.arange(num_frames, device=wide.device, dtype=wide.dtype)[:, None]
    rois = torch.cat([frame_numbers, boxes_F4.to(wide.dtype) * cells_per_box], dim=1)
    pooled = roi_align(wide, rois, output_size=ROI_CELLS, spatial_scale=1.0, sampling_ratio=-1, aligned=False)
    return pooled.to(tokens_FCHW.dtype)


class BoxAdapter(GradientCheckpointingLayer):
    """Let every patch of a frame attend to the cells inside that frame's box.

    x <- x + out(attention(q(n), k(r), v(r))) with n = norm(x) and r = conv-MLP(RoIAlign(n, box)), single head;
    x <- x + gated feed-forward(norm(x)), with a depthwise 3x3 convolution before the gate.

    Args:
        make_norm: builds each of the two norms; by default over the channels.
    """

    def __init__(self, channels: int, make_norm: Callable[[], nn.Module] | None = None) -> None:
        super().__init__()
        make_norm = make_norm or (lambda: ChannelRMSNorm(channels))
        self.attention_norm = make_norm()
        self.roi_conv = FanInConv2d(channels, 2 * channels, kernel_size=3, padding=1)
        self.roi_proj = FanInLinear(2 * channels, channels)
        self.query = FanInLinear(channels, channels)
        # Its bias shifts all scores of a query alike, which softmax cancels; the original's checkpoints have one.
        self.key = FanInLinear(channels, channels)
        self.value = FanInLinear(channels, channels)
        self.attention_out = ZeroInitLinear(channels, channels)
        self.ffn_norm = make_norm()
        self.ffn_in = FanInLinear(channels, 4 * channels, bias=False)
        self.ffn_depthwise = FanInConv2d(
            4 * channels, 4 * channels, kernel_size=3, padding=1, groups=4 * channels, bias=False
        )
        self.ffn_out = ZeroInitLinear(2 * channels, channels, bias=False)

    def forward(self, tokens_FNC: torch.Tensor, boxes_F4: torch.Tensor, grid_HW: tuple[int, int]) -> torch.Tensor:
        """Adapt the patch tokens of each frame to its box.

        Args:
            tokens_FNC: patch tokens without the class token, [F, N, C]; N = H * W, row-major.
            boxes_F4: one box a frame, [F, 4], x1 y1 x2 y2 in thousandths of the side, 0 to 1000; all zero = absent.
            grid_HW: the patch grid.
        Returns:
            Tokens of the same shape and dtype; equal to the input at initialisation and wherever the box is absent.
        Raises:
            ValueError: tokens, boxes and grid disagree about F or N.
        """
        num_frames, num_patches, channels = tokens_FNC.shape
        height, width = grid_HW
        if boxes_F4.shape != (num_frames, 4):
            raise ValueError(f"expected one box a frame, [{num_frames}, 4], got {list(boxes_F4.shape)}")
        if num_patches != height * width:
            raise ValueError(f"{num_patches} patches do not fill a grid of {height} x {width}")

        normed_FNC = self.attention_norm(tokens_FNC)
        roi_FC77 = roi_cells(self._as_map(normed_FNC, grid_HW), boxes_F4)
        roi_FRC = self.roi_proj(nnf.gelu(self.roi_conv(roi_FC77).flatten(2).transpose(1, 2)))
        # Fused kernels want an axis of heads, of which there is one.
        query, key, value = self.query(normed_FNC), self.key(roi_FRC), self.value(roi_FRC)
        attended_F1NC = nnf.scaled_dot_product_attention(
            query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1), scale=channels**-0.5
        )
        adapted_FNC = tokens_FNC + self.attention_out(attended_F1NC.squeeze(1))
        adapted_FNC = adapted_FNC + self._feed_forward(adapted_FNC, grid_HW)
        return torch.where(boxes_present(boxes_F4)[:, None, None], adapted_FNC, tokens_FNC)

    def _feed_forward(self, tokens_FNC: torch.Tensor, grid_HW: tuple[int, int]) -> torch.Tensor:
        hidden = self.ffn_depthwise(self._as_map(self.ffn_in(self.ffn_norm(tokens_FNC)), grid_HW))
        gate, content = hidden.flatten(2).transpose(1, 2).chunk(2, dim=-1)
        return self.ffn_out(nnf.gelu(gate) * content)

    @staticmethod
    def _as_map(tokens_FNC: torch.Tensor, grid_HW: tuple[int, int]) -> torch.Tensor:
        return tokens_FNC.transpose(1, 2).unflatten(2, grid_HW)
