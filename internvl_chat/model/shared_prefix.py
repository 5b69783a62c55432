"""Attention for packed rows: samples side by side, each a prompt read once and answers that do not see each other.

A row [1, L] holds, sample after sample, a prompt of P tokens and its answers, R tokens together. A prompt's rows attend
causally within the prompt, at the speed of the causal kernel; the few rows of the answers attend to the prompt and,
causally, each to its own answer. So no mask of L x L exists, only one of R x (P + R) a sample.

Shape letters: H heads, G key and value heads, L row positions, D a head's width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask
from transformers.models.qwen2.modeling_qwen2 import eager_attention_forward

from internvl_chat.contracts import SharedPrefix
from internvl_chat.model.grouped_attention import grouped_attention
from internvl_chat.model.memory.remaking import remade
from internvl_chat.model.rotary_frequencies import use_sample_rotary

_NAME_PREFIX = "shared_prefix_"
_AS_IS = nn.Identity()


def answer_mask(prefix: SharedPrefix, device: torch.device | None = None) -> torch.Tensor:
    """What each answer token of a sample may see: [R, P + R] bool."""
    answer_lengths = torch.tensor(prefix.answer_lengths, device=device)
    num_rows = sum(prefix.answer_lengths)
    answer_of_row = torch.arange(len(answer_lengths), device=device).repeat_interleave(
        answer_lengths, output_size=num_rows
    )
    own = (answer_of_row[:, None] == answer_of_row[None, :]).tril()
    return torch.cat([own.new_ones(num_rows, prefix.prompt_length), own], dim=1)


@dataclass(frozen=True)
class PackedAttention:
    """A row's layout with the masks of its answers: made once a forward pass and handed to every layer.

    Args:
        target_positions: [N], the rows whose final hidden states are wanted.
    """

    layout: tuple[SharedPrefix, ...]
    masks: tuple[torch.Tensor | None, ...]
    target_positions: torch.Tensor

    @staticmethod
    def of(layout: Sequence[SharedPrefix], target_positions: torch.Tensor) -> PackedAttention:
        device = target_positions.device
        masks = (answer_mask(prefix, device) if prefix.answer_lengths else None for prefix in layout)
        return PackedAttention(tuple(layout), tuple(masks), target_positions)


def reads_grouped_heads(query: torch.Tensor) -> bool:
    """Whether fused kernels share keys between heads where this tensor is; those of a CPU want them repeated."""
    return query.is_cuda


def _sdpa(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    dropout: float,
) -> torch.Tensor:
    if mask is not None and not dropout:
        return grouped_attention(query, key, value, mask, scaling)
    # With a mask no fused kernel reads grouped heads.
    grouped = mask is None and reads_grouped_heads(query)
    if not grouped:
        repeat = partial(torch.repeat_interleave, repeats=module.num_key_value_groups, dim=1)
        key, value = (remade(repeat, states) for states in (key, value))
    return nnf.scaled_dot_product_attention(
        query, key, value, mask, dropout_p=dropout, is_causal=mask is None, scale=scaling, enable_gqa=grouped
    )


def _eager(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    dropout: float,
) -> torch.Tensor:
    if mask is None:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    added = query.new_zeros(mask.shape).masked_fill(~mask, torch.finfo(query.dtype).min)
    return eager_attention_forward(module, query, key, value, added, scaling, dropout)[0].transpose(1, 2)


def _flash(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    dropout: float,
) -> torch.Tensor:
    if mask is not None:
        return _sdpa(module, query, key, value, mask, scaling, dropout)
    from flash_attn import flash_attn_func

    states = (s.transpose(1, 2) for s in (query, key, value))
    return flash_attn_func(*states, dropout_p=dropout, softmax_scale=scaling, causal=True).transpose(1, 2)


@dataclass(frozen=True)
class _SharedPrefixAttention:
    """An attention function as transformers calls it.

    `kernel` serves packed rows; `ordinary` everything else, generation for one.
    """

    kernel: Callable[..., torch.Tensor]
    ordinary: Callable[..., tuple[torch.Tensor, torch.Tensor | None]]

    def __call__(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float,
        dropout: float = 0.0,
        packed: PackedAttention | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend; query is [B, H, L, D], key and value [B, G, L, D], the output [B, L, H, D].

        Raises:
            ValueError: the model looks back over a window that is shorter than a packed sample.
        """
        if packed is None:
            return self.ordinary(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs)
        window = kwargs.get("sliding_window")
        if window is not None and window < max(prefix.length for prefix in packed.layout):
            raise ValueError(f"packed rows need full attention, this model's window is {window} tokens")
        outputs = []
        start = 0
        for prefix, mask in zip(packed.layout, packed.masks, strict=True):
            middle, stop = start + prefix.prompt_length, start + prefix.length
            prompt = (states[:, :, start:middle] for states in (query, key, value))
            outputs.append(self.kernel(module, *prompt, None, scaling, dropout))
            if mask is not None:
                visible = (states[:, :, start:stop] for states in (key, value))
                outputs.append(self.kernel(module, query[:, :, middle:stop], *visible, mask, scaling, dropout))
            start = stop
        return remade(_side_by_side, *outputs), None


def _side_by_side(*outputs_BHLD: torch.Tensor) -> torch.Tensor:
    """[B, L, H, D] of all."""
    return torch.cat(outputs_BHLD, dim=2).transpose(1, 2).contiguous()


# The base's attention implementation -> its packed form. The names hold no "flash": transformers would look for a
# kernel of that name.
_IMPLEMENTATIONS = {
    "sdpa": ("sdpa", _SharedPrefixAttention(_sdpa, sdpa_attention_forward), sdpa_mask),
    "eager": ("eager", _SharedPrefixAttention(_eager, eager_attention_forward), eager_mask),
    "flash_attention_2": ("fa2", _SharedPrefixAttention(_flash, sdpa_attention_forward), sdpa_mask),
}
for _name, _attention, _make_mask in _IMPLEMENTATIONS.values():
    AttentionInterface.register(_NAME_PREFIX + _name, _attention)
    AttentionMaskInterface.register(_NAME_PREFIX + _name, _make_mask)


class _LastLayer:
    """What a decoder's last layer does for a packed row: behind its attention, only the wanted rows go on.

    No later layer reads the others. Mixed into the layer's own class.
    """

    input_layernorm: nn.Module
    self_attn: nn.Module
    post_attention_layernorm: nn.Module
    mlp: nn.Module

    def forward(
        self, hidden_states: torch.Tensor, *args: Any, packed: PackedAttention | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """[B, L, D] to the same; with `packed`, [1, L, D] to [1, N, D]."""
        if packed is None:
            return super().forward(hidden_states, *args, **kwargs)  # type: ignore[misc]
        attended, _ = self.self_attn(self.input_layernorm(hidden_states), *args, packed=packed, **kwargs)
        # Phi-3 has dropout on both branches.
        drop_attended, drop_mlp = (getattr(self, f"resid_{branch}_dropout", _AS_IS) for branch in ("attn", "mlp"))
        wanted = (hidden_states + drop_attended(attended))[:, packed.target_positions]
        return wanted + drop_mlp(self.mlp(self.post_attention_layernorm(wanted)))


def use_shared_prefix_attention(model: PreTrainedModel) -> None:
    """Let the language model of a captioner read packed rows beside ordinary ones.

    Of a packed row it gives the final hidden states of `PackedAttention.target_positions` only.

    Raises:
        ValueError: its attention implementation has no packed form.
    """
    current = model.config.text_config._attn_implementation
    if current.startswith(_NAME_PREFIX):
        return
    if current not in _IMPLEMENTATIONS:
        raise ValueError(f"attention {current!r} cannot read packed rows: use one of {', '.join(_IMPLEMENTATIONS)}")
    model.set_attn_implementation({"text_config": _NAME_PREFIX + _IMPLEMENTATIONS[current][0]})
    use_sample_rotary(model)
    last = model.model.language_model.layers[-1]
    last.__class__ = type(type(last).__name__, (_LastLayer, type(last)), {})
