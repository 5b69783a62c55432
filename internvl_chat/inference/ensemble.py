"""Captioners that decode in step: one forward pass gives the weighted mean of their log-probabilities.

transformers' own `generate` sees one model whose prompt is the last token alone; what each member has read before
travels in the cache. Shape letters: R rows (asks times beams or samples), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from internvl_chat.contracts import UserError
from internvl_chat.model.shared_prompt import CACHE_NAME, SharedPrompts, use_shared_prompts


class EnsembleCache(Cache):
    """What every member has read of the asks, and the tokens that were chosen since, row by row.

    As far as `generate` can tell it is empty at first: its length counts the tokens decoded in step.
    """

    def __init__(self, prompts: Sequence[SharedPrompts]) -> None:
        super().__init__(layers=[])
        self.prompts = prompts
        self.caches = [DynamicCache() for _ in prompts]

    @property
    def is_compileable(self) -> bool:
        return False

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.caches[0].get_seq_length(layer_idx)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        # Beams change places within their ask, so that the prompts stay.
        for cache in self.caches:
            cache.reorder_cache(beam_idx)


class Ensemble(PreTrainedModel, GenerationMixin):
    """Members that choose every token together.

    Args:
        members: models of one vocabulary.
        weights: positive, one a member; only their ratios matter.
    """

    config_class = PreTrainedConfig
    main_input_name = "input_ids"

    def __init__(self, members: Sequence[PreTrainedModel], weights: Sequence[float] | None = None) -> None:
        # A configuration of its own: the members' generation settings are theirs, and are not inherited. transformers
        # below 5.23 looks up the vocabulary's size for beams.
        super().__init__(PreTrainedConfig(vocab_size=members[0].config.get_text_config().vocab_size))
        self.members = tuple(members)
        # Registered too, so that the device and the mode of all are this model's.
        self._modules_of_members = nn.ModuleList(members)
        for member in members:
            use_shared_prompts(member)
        self.weights = normalised_weights(len(members), weights)

    def forward(
        self,
        input_ids: torch.Tensor,
        past_key_values: EnsembleCache | None = None,
        cache: EnsembleCache | None = None,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """One step: input_ids [R, 1] to the mixed log-probabilities [R, 1, V] (a single member's logits as they are).

        The cache, under the name that this version of transformers has for it, is changed in place.
        """
        state, mixed = cache if past_key_values is None else past_key_values, None
        assert state is not None
        num_decoded = state.get_seq_length()
        # A mask of four axes is taken as it is; the shared prompts bring their own.
        no_mask = torch.empty(1, 1, 0, 0, device=input_ids.device)
        for member, weight, prompts, own in zip(self.members, self.weights, state.prompts, state.caches, strict=True):
            rows_per_ask = len(input_ids) // len(prompts.mask)
            logits = member(
                input_ids=input_ids,
                attention_mask=no_mask,
                position_ids=prompts.next_positions.repeat_interleave(rows_per_ask)[:, None] + num_decoded,
                use_cache=True,
                prompts=prompts,
                **{CACHE_NAME: own},
            ).logits
            if len(self.members) > 1:
                logits = weight * logits.float().log_softmax(-1)
            mixed = logits if mixed is None else mixed + logits
        return CausalLMOutputWithPast(logits=mixed, **{CACHE_NAME: state})


def normalised_weights(num_members: int, weights: Sequence[float] | None) -> list[float]:
    """The weights divided by their sum; all alike where none are given.

    Raises:
        UserError: not as many as members, or not all positive.
    """
    given = [1.0] * num_members if weights is None else list(weights)
    if len(given) != num_members or not all(0 < weight < float("inf") for weight in given):
        raise UserError(
            f"--weights {' '.join(f'{w:g}' for w in given)}: expected {num_members} positive numbers, one a checkpoint"
        )
    return [weight / sum(given) for weight in given]
