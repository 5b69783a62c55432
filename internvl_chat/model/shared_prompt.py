"""Attention of new tokens to a prompt that is kept once: beams and samples of an ask share its keys and values.

transformers' caches repeat the prompt for every row, copy it whenever a token is appended, and again whenever beams
change places. Here only the new tokens have rows of their own. Shape letters: A asks, K rows of an ask, R = A * K, H
heads, G key and value heads, n = H / G, P prompt positions, T new tokens so far, D a head's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as nnf
from torch.backends.cuda import SDPAParams, can_use_flash_attention
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import CausalLMOutputWithPast

from internvl_chat.model.grouped_attention import exact_product

_NAME = "shared_prompt"
# A GPU's kernels want heads of a multiple of so many numbers, and rows of a bias that begin at one of so many.
_KERNEL_WIDTH, _BIAS_PIECE = 8, 16
# What a model reads again is handed to it under this name, by transformers' version.
CACHE_NAME = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"


@dataclass(frozen=True)
class SharedPrompts:
    """What a language model has read of each ask: keys and values [A, G, P, D] a layer, and which count, [A, P].

    `next_positions` [A] are the position ids that the tokens behind have, the first of them. `padded` says whether some
    position does not count, so that nobody has to wait for the device to know.
    """

    cache: DynamicCache
    mask: torch.Tensor
    next_positions: torch.Tensor
    padded: bool

    @cached_property
    def bias(self) -> torch.Tensor | None:
        """That of the mask; None where all positions count."""
        return additive_bias(self.mask, self.cache.layers[0].keys.dtype) if self.padded else None

    @staticmethod
    def joined(parts: Sequence[SharedPrompts]) -> SharedPrompts:
        """The asks of all parts, in order. The parts are used up, so that only a layer at a time is there twice."""
        first, *others = parts
        if not others:
            return first
        longest = max(part.mask.shape[1] for part in parts)
        for layers in zip(*(part.cache.layers for part in parts), strict=True):
            layers[0].keys = torch.cat([_filled(layer.keys, longest, axis=2) for layer in layers])
            layers[0].values = torch.cat([_filled(layer.values, longest, axis=2) for layer in layers])
            for layer in layers[1:]:
                layer.reset()
        mask = torch.cat([_filled(part.mask, longest, axis=1) for part in parts])
        padded = any(part.padded or part.mask.shape[1] < longest for part in parts)
        return SharedPrompts(first.cache, mask, torch.cat([part.next_positions for part in parts]), padded)


def _filled(tensor: torch.Tensor, length: int, axis: int) -> torch.Tensor:
    """Zeros behind the tensor's end along an axis, up to `length`."""
    behind_each = (0, 0) * (tensor.dim() - 1 - axis)
    return nnf.pad(tensor, (*behind_each, 0, length - tensor.shape[axis]))


def additive_bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is added to scores, [A, P] like the mask: minus infinity where it is zero."""
    num_asks, length = mask.shape
    # Kernels read a row of it in pieces.
    whole_pieces = length + -length % _BIAS_PIECE
    bias = torch.zeros(num_asks, whole_pieces, dtype=dtype, device=mask.device)[:, :length]
    return bias.masked_fill_(mask == 0, -torch.inf)


def attend_to_shared_prompts(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    prompt_key: torch.Tensor,
    prompt_value: torch.Tensor,
    prompt_bias: torch.Tensor | None,
    scaling: float,
) -> torch.Tensor:
    """Attend to the prompt of one's ask and to one's own new tokens, under one softmax.

    The prompt's part is a fused kernel's, which writes no scores: its sums of exponents say what share the prompt has
    beside the new tokens.

    Args:
        query: [R, H, 1, D], the newest token of each row; the K rows of an ask stand side by side.
        key, value: [R, G, T, D], new tokens, the newest included.
        prompt_key, prompt_value: [A, G, P, D].
        prompt_bias: [A, P], see `additive_bias`; None where all positions count.
    Returns:
        [R, 1, H, D].
    """
    num_rows, num_heads, _, width = query.shape
    num_asks, num_groups, _, _ = prompt_key.shape
    each, rest = num_rows // num_asks, num_heads // num_groups

    def by_row(asks: torch.Tensor) -> torch.Tensor:
        """[A, G, K * n, X] -> [R, G, n, X]."""
        return asks.unflatten(2, (each, rest)).transpose(1, 2).flatten(0, 1)

    query_RGnD = query.reshape(num_rows, num_groups, rest, width)
    by_ask = query_RGnD.unflatten(0, (num_asks, each)).transpose(1, 2).flatten(2, 3)
    of_prompt, log_sums = attend_to_prompts(by_ask, prompt_key, prompt_value, prompt_bias, scaling)
    to_new = exact_product(query_RGnD, key.transpose(-1, -2)).mul_(scaling)
    # The whole prompt is one more column.
    shares = torch.cat([by_row(log_sums.unsqueeze(-1)).to(to_new.dtype), to_new], dim=-1).softmax(-1)
    of_new = shares[..., 1:].to(value.dtype) @ value
    attended = torch.addcmul(of_new, shares[..., :1], by_row(of_prompt)).to(value.dtype)
    return attended.reshape(num_rows, 1, num_heads, width)


def attend_to_prompts(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of queries [A, G, R, D] to keys and values [A, G, P, D], with a bias [A, P] or without.

    PyTorch's public attention keeps the sums to itself, so its kernels are called by their names here.

    Returns:
        What was attended to, [A, G, R, D]; the logarithm of each row's sum of exponents, [A, G, R].
    """
    kernels = torch.ops.aten
    num_rows, width = query.shape[2:]
    added = None if bias is None else bias[:, None, None].expand(-1, key.shape[1], num_rows, -1)
    if not query.is_cuda:
        output, log_sums = kernels._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, attn_mask=added, scale=scaling
        )
        return output, log_sums
    if behind := -width % _KERNEL_WIDTH:
        query, key, value = (nnf.pad(states, (0, behind)) for states in (query, key, value))
    # FlashAttention takes no bias; it shares a long prompt out to many processors, however few the rows.
    if added is None and can_use_flash_attention(SDPAParams(query, key, value, None, 0.0, False, False)):
        output, log_sums, *_ = kernels._scaled_dot_product_flash_attention(query, key, value, scale=scaling)
    else:
        output, log_sums, *_ = kernels._scaled_dot_product_efficient_attention(
            query, key, value, added, compute_log_sumexp=True, scale=scaling
        )
    return output[..., :width], log_sums[..., :num_rows]


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    prompts: SharedPrompts | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """An attention function as transformers calls it; without `prompts` it is the ordinary one."""
    if prompts is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    layer = prompts.cache.layers[module.layer_idx]
    window = kwargs.get("sliding_window")
    if window is not None and window < layer.keys.shape[2] + key.shape[2]:
        raise ValueError(f"shared prompts need full attention, this model's window is {window} tokens")
    return attend_to_shared_prompts(query, key, value, layer.keys, layer.values, prompts.bias, scaling), None


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)


def use_shared_prompts(model: PreTrainedModel) -> None:
    """Let a captioner's language model continue `SharedPrompts`, given as `prompts`; other calls stay as they were."""
    model.set_attn_implementation({"text_config": _NAME})
