"""Attention of new tokens to a prompt that is kept once: beams and samples of an ask share its keys and values.

transformers' caches repeat the prompt for every row, copy it whenever a token is appended, and again whenever beams
change places. Here only the new tokens have rows of their own. Shape letters: A asks, K rows of an ask, R = A * K, H
heads, G key and value heads, n = H / G, P prompt positions, T new tokens so far, D a head's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as nnf
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import CausalLMOutputWithPast

from internvl_chat.model.grouped_attention import exact_product

_NAME = "shared_prompt"
# What a model reads again is handed to it under this name, by transformers' version.
CACHE_NAME = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"


@dataclass(frozen=True)
class SharedPrompts:
    """What a language model has read of each ask: keys and values [A, G, P, D] a layer, and which count, [A, P].

    `next_positions` [A] are the position ids that the tokens behind have, the first of them.
    """

    cache: DynamicCache
    mask: torch.Tensor
    next_positions: torch.Tensor

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
        return SharedPrompts(first.cache, mask, torch.cat([part.next_positions for part in parts]))


def _filled(tensor: torch.Tensor, length: int, axis: int) -> torch.Tensor:
    """Zeros behind the tensor's end along an axis, up to `length`."""
    behind_each = (0, 0) * (tensor.dim() - 1 - axis)
    return nnf.pad(tensor, (*behind_each, 0, length - tensor.shape[axis]))


def attend_to_shared_prompts(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    prompt_key: torch.Tensor,
    prompt_value: torch.Tensor,
    prompt_mask: torch.Tensor,
    scaling: float,
) -> torch.Tensor:
    """Attend to the prompt of one's ask and to one's own new tokens, under one softmax.

    Args:
        query: [R, H, 1, D], the newest token of each row; the K rows of an ask stand side by side.
        key, value: [R, G, T, D], new tokens, the newest included.
        prompt_key, prompt_value: [A, G, P, D].
        prompt_mask: [A, P], zero where a position is padding.
    Returns:
        [R, 1, H, D].
    """
    num_rows, num_heads, _, width = query.shape
    num_asks, num_groups, prompt_length, _ = prompt_key.shape
    each, rest = num_rows // num_asks, num_heads // num_groups

    def by_ask(rows: torch.Tensor) -> torch.Tensor:
        """[R, G, n, X] -> [A, G, K * n, X]."""
        return rows.unflatten(0, (num_asks, each)).transpose(1, 2).flatten(2, 3)

    def by_row(asks: torch.Tensor) -> torch.Tensor:
        """[A, G, K * n, X] -> [R, G, n, X]."""
        return asks.unflatten(2, (each, rest)).transpose(1, 2).flatten(0, 1)

    query_RGnD = query.reshape(num_rows, num_groups, rest, width)
    to_prompt = exact_product(by_ask(query_RGnD), prompt_key.transpose(-1, -2))
    to_prompt.masked_fill_((prompt_mask == 0)[:, None, None], -torch.inf)
    to_new = by_ask(exact_product(query_RGnD, key.transpose(-1, -2)))
    shares = torch.cat([to_prompt, to_new], dim=-1).mul_(scaling).softmax(-1).to(value.dtype)
    of_prompt, of_new = shares.split([prompt_length, shares.shape[-1] - prompt_length], dim=-1)
    attended = by_row(of_prompt @ prompt_value) + by_row(of_new) @ value
    return attended.reshape(num_rows, 1, num_heads, width)


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
    return attend_to_shared_prompts(query, key, value, layer.keys, layer.values, prompts.mask, scaling), None


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)


def use_shared_prompts(model: PreTrainedModel) -> None:
    """Let a captioner's language model continue `SharedPrompts`, given as `prompts`; other calls stay as they were."""
    model.set_attn_implementation({"text_config": _NAME})
