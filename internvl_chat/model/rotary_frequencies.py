"""Rotary frequencies: as precise as they are computed, and in rows that hold several texts those of each text.

Some language models (`longrope` of Phi3, `dynamic` of InternLM2 and Llama) have other frequencies behind a number of
positions, and transformers chooses them for a whole row by the largest position in it. In a packed row each sample is a
text of its own. Shape letters: L row positions, D a head's width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

_BY_LENGTH = ("longrope", "dynamic")
_FREQUENCIES = "inv_freq"


def restore_precision(model: nn.Module) -> None:
    """Compute in float32 the rotary frequencies that were rounded when the model was built.

    ZeRO-3's `zero.Init` hands out what `torch.arange` returns in the weights' dtype, and transformers computes the
    frequencies inside it; from 5.23 on it keeps `arange` out of that.
    """
    for module in model.modules():
        rounded = getattr(module, _FREQUENCIES, None)
        if isinstance(rounded, torch.Tensor) and rounded.dtype != torch.float32:
            # It has no weights: built again, outside of zero.Init, it is what it was meant to be.
            exact: Any = type(module)(module.config)
            for name, buffer in exact.named_buffers():
                setattr(module, name, buffer.to(rounded.device))


class SampleRotary(nn.Module):
    """The rotary embedding of a language model, asked sample by sample.

    A sample begins where the position is 0; its answers continue its prompt's positions, and count to its length.
    """

    def __init__(self, rotary: nn.Module) -> None:
        super().__init__()
        self.rotary: Any = rotary

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines [B, L, D] of position_ids [B, L]; a packed row is a batch of one."""
        starts = (position_ids[0] == 0).nonzero().flatten().tolist() if len(position_ids) == 1 else []
        if len(starts) < 2:
            return self.rotary(x, position_ids)
        parts = []
        for start, stop in zip(starts, [*starts[1:], position_ids.shape[1]], strict=True):
            self._forget()
            parts.append(self.rotary(x, position_ids[:, start:stop]))
        cosines, sines = zip(*parts, strict=True)
        return torch.cat(cosines, dim=1), torch.cat(sines, dim=1)

    def _forget(self) -> None:
        """Dynamic frequencies grow with the longest text seen; the next sample has not seen it."""
        if self.rotary.rope_type == "dynamic":
            self.rotary.inv_freq = self.rotary.original_inv_freq.to(self.rotary.inv_freq.device)
            self.rotary.max_seq_len_cached = self.rotary.original_max_seq_len


def use_sample_rotary(model: PreTrainedModel) -> None:
    """Let a captioner read packed rows with each sample's own frequencies, where length decides them."""
    core = model.model.language_model
    kind = (getattr(core.config, "rope_parameters", None) or {}).get("rope_type")
    if kind in _BY_LENGTH and not isinstance(core.rotary_emb, SampleRotary):
        core.rotary_emb = SampleRotary(core.rotary_emb)
