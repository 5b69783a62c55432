"""The prompt is read once: keys and values of what the asks of a clip have in common, then of what is their own.

Shape letters: A asks, G groups of asks with the same beginning (clip and boxes), P positions of the beginnings, R
positions of the rests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel

from internvl_chat.contracts import UserError
from internvl_chat.families import family_of
from internvl_chat.inference.requests import ViewedClip, shown_length
from internvl_chat.inference.rotary import longest_read
from internvl_chat.model.shared_prompt import CACHE_NAME, SharedPrompts
from internvl_chat.vision import Vision, joined, moved

# Enough to keep a processor busy. More would only make larger what passes through the layers: memory that decoding does
# not need, and on a CPU pages that the system hands out anew for every tensor.
PASS_TOKENS = 4096


@dataclass(frozen=True)
class PromptBatch:
    """Prompts that are read in one pass, in two parts: a beginning that asks share, and a rest.

    The last token is in neither: decoding begins with it. Beginnings are padded on the right, rests on the left.
    `visions` has what each clip shows, `clip_of_group` which of them each group is about, `tensors` what is a group's
    own; `group_of_ask` [A] says which beginning an ask continues.
    """

    beginning_ids: torch.Tensor  # [G, P]
    beginning_mask: torch.Tensor
    rest_ids: torch.Tensor  # [A, R]
    rest_mask: torch.Tensor
    group_of_ask: torch.Tensor
    visions: tuple[Vision, ...]
    clip_of_group: tuple[int, ...]
    tensors: Vision

    @staticmethod
    def of(clips: Sequence[ViewedClip], placeholder_ids: Sequence[int]) -> PromptBatch:
        """Lay out the asks of these clips, in order; those share a beginning that agree up to their last tile."""
        beginnings: list[list[int]] = []
        rests: list[list[int]] = []
        group_of_ask: list[int] = []
        clip_of_group: list[int] = []
        tensors: list[Vision] = []
        for clip_number, clip in enumerate(clips):
            groups: dict[tuple[object, ...], list[int]] = {}
            for number, prompt in enumerate(clip.prompts):
                own = (tensor.numpy().tobytes() for tensor in prompt.tensors.values())
                key = (*own, *prompt.input_ids[: shown_length(prompt.input_ids, placeholder_ids)])
                groups.setdefault(key, []).append(number)
            shared_of: dict[int, tuple[int, int]] = {}
            for numbers in groups.values():
                shared = _shared_length([clip.prompts[n].input_ids for n in numbers])
                shared_of |= {n: (len(beginnings), shared) for n in numbers}
                beginnings.append(clip.prompts[numbers[0]].input_ids[:shared])
                clip_of_group.append(clip_number)
                tensors.append(clip.prompts[numbers[0]].tensors)
            for number, prompt in enumerate(clip.prompts):
                group, shared = shared_of[number]
                group_of_ask.append(group)
                rests.append(prompt.input_ids[shared:-1])
        beginning_ids, beginning_mask = _padded(beginnings, "right")
        rest_ids, rest_mask = _padded(rests, "left")
        return PromptBatch(
            beginning_ids,
            beginning_mask,
            rest_ids,
            rest_mask,
            torch.tensor(group_of_ask),
            tuple(clip.vision for clip in clips),
            tuple(clip_of_group),
            joined(tensors),
        )

    def to(self, device: torch.device, dtype: torch.dtype) -> PromptBatch:
        """The batch on `device`, its pixels as `dtype`."""
        changed: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, torch.Tensor)
        }
        changed["visions"] = tuple(moved(vision, device, dtype) for vision in self.visions)
        return replace(self, **changed, tensors=moved(self.tensors, device, dtype))


def _shared_length(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens at the beginning are the same in all prompts; the last token of each is always its own."""
    limit = min(len(prompt) for prompt in prompts) - 1
    columns = zip(*(prompt[:limit] for prompt in prompts), strict=True)
    return next((n for n, column in enumerate(columns) if len(set(column)) > 1), limit)


def _padded(rows: Sequence[Sequence[int]], side: Literal["left", "right"]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask [rows, longest]."""
    ids, mask = (
        pad_sequence([torch.tensor(r, dtype=torch.long) for r in of_row], batch_first=True, padding_side=side)
        for of_row in (rows, [[1] * len(row) for row in rows])
    )
    return ids, mask


def read_prompts(model: PreTrainedModel, clips: Sequence[ViewedClip], max_new_tokens: int) -> SharedPrompts:
    """Read everything but the last tokens of what is asked of these clips, in passes of about `PASS_TOKENS`.

    Raises:
        UserError: with its answer a prompt is longer than can be read before the answer.
    """
    longest = max(len(prompt.input_ids) for clip in clips for prompt in clip.prompts)
    limit = longest_read(model.config)
    if limit and longest + max_new_tokens > limit[0]:
        raise UserError(
            f"a prompt of {longest} tokens and an answer of {max_new_tokens}: this model {limit[1]}, "
            "and longer prompts cannot be shared; give fewer frames (--num_frames)"
        )
    placeholders = family_of(model.config).parts.placeholder_ids(model.config)
    batches = (PromptBatch.of(portion, placeholders) for portion in _portions(clips))
    return SharedPrompts.joined([read_batch(model, batch.to(model.device, model.dtype)) for batch in batches])


def _portions(clips: Sequence[ViewedClip]) -> Iterator[list[ViewedClip]]:
    portion: list[ViewedClip] = []
    tokens = 0
    for clip in clips:
        of_clip = sum(len(prompt.input_ids) for prompt in clip.prompts)
        if portion and tokens + of_clip > PASS_TOKENS:
            yield portion
            portion, tokens = [], 0
        portion.append(clip)
        tokens += of_clip
    yield portion


def read_batch(model: PreTrainedModel, batch: PromptBatch) -> SharedPrompts:
    """Read the prompts of one pass.

    A tower's layers that no box reaches see a frame once, whatever the number of boxes on it; the language model reads
    a beginning once, whatever the number of questions that follow it.
    """
    core: Any = model.model
    vision = {**core.spread(batch.visions, batch.clip_of_group), **batch.tensors}
    embeds, position_ids = core.embed_prompt(batch.beginning_ids, vision)
    # Nothing of what the tower computed on the way is kept.
    del vision
    cache = DynamicCache(config=model.config.text_config)
    mask = batch.beginning_mask
    lengths = mask.sum(-1)
    next_positions = lengths
    if position_ids is not None:
        next_positions = position_ids.gather(1, lengths[:, None] - 1)[:, 0] + 1
    # No token sees what is padded behind it, so that no mask is needed: attention then skips what is not seen at all.
    core.language_model(inputs_embeds=embeds, position_ids=position_ids, use_cache=True, **{CACHE_NAME: cache})
    next_positions = next_positions[batch.group_of_ask]
    if len(batch.group_of_ask) > len(mask):
        cache.batch_select_indices(batch.group_of_ask)
        mask = mask[batch.group_of_ask]
    if batch.rest_ids.shape[1]:
        mask = torch.cat([mask, batch.rest_mask], dim=1)
        core.language_model(
            input_ids=batch.rest_ids,
            attention_mask=mask,
            position_ids=next_positions[:, None] + (batch.rest_mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=True,
            **{CACHE_NAME: cache},
        )
        next_positions = next_positions + batch.rest_mask.sum(-1)
    return SharedPrompts(cache, mask, next_positions, padded=bool((mask == 0).any()))
