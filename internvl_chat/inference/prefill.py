"""The prompt is read once: keys and values of what the asks of a clip have in common, then of what is their own.

Shape letters: A asks, G groups of asks with the same beginning (clip and boxes), F tiles of all clips, E tiles of all
groups, P positions of the beginnings, R positions of the rests, S the tile's side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from internvl_chat.contracts import UserError
from internvl_chat.inference.requests import ViewedClip
from internvl_chat.model import IntentVCNetForConditionalGeneration
from internvl_chat.model.shared_prompt import SharedPrompts

# Enough to keep a processor busy. More would only make larger what passes through the layers: memory that decoding does
# not need, and on a CPU pages that the system hands out anew for every tensor.
PASS_TOKENS = 4096


@dataclass(frozen=True)
class PromptBatch:
    """Prompts that are read in one pass, in two parts: a beginning that asks share, and a rest.

    The last token is in neither: decoding begins with it. Beginnings are padded on the right, rests on the left.
    `tile_rows` [E] says which of the tiles each group shows, `boxes` [E, 4] where its object is in them, `group_of_ask`
    [A] which beginning an ask continues.
    """

    beginning_ids: torch.Tensor  # [G, P]
    beginning_mask: torch.Tensor
    rest_ids: torch.Tensor  # [A, R]
    rest_mask: torch.Tensor
    group_of_ask: torch.Tensor
    pixel_values: torch.Tensor  # [F, 3, S, S]
    tile_rows: torch.Tensor
    boxes: torch.Tensor

    @staticmethod
    def of(clips: Sequence[ViewedClip], image_token_id: int) -> PromptBatch:
        """Lay out the asks of these clips, in order; those share a beginning that agree up to their last tile."""
        beginnings: list[list[int]] = []
        rests: list[list[int]] = []
        group_of_ask: list[int] = []
        tile_rows: list[torch.Tensor] = []
        boxes: list[torch.Tensor] = []
        num_tiles = 0
        for clip in clips:
            rows = torch.arange(num_tiles, num_tiles + len(clip.pixel_values))
            num_tiles += len(rows)
            groups: dict[tuple[object, ...], list[int]] = {}
            for number, prompt in enumerate(clip.prompts):
                ids = prompt.input_ids
                after_tiles = len(ids) - ids[::-1].index(image_token_id) if image_token_id in ids else 0
                key = (prompt.boxes.tobytes(), *ids[:after_tiles])
                groups.setdefault(key, []).append(number)
            shared_of: dict[int, tuple[int, int]] = {}
            for numbers in groups.values():
                shared = _shared_length([clip.prompts[n].input_ids for n in numbers])
                shared_of |= {n: (len(beginnings), shared) for n in numbers}
                beginnings.append(clip.prompts[numbers[0]].input_ids[:shared])
                tile_rows.append(rows)
                boxes.append(torch.from_numpy(clip.prompts[numbers[0]].boxes))
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
            torch.cat([clip.pixel_values for clip in clips]),
            torch.cat(tile_rows),
            torch.cat(boxes),
        )

    def to(self, device: torch.device, dtype: torch.dtype) -> PromptBatch:
        """The batch on `device`, its pixels as `dtype`."""
        moved = {name: tensor.to(device) for name, tensor in vars(self).items()}
        return PromptBatch(**{**moved, "pixel_values": moved["pixel_values"].to(dtype)})


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


def _positions(mask: torch.Tensor) -> torch.Tensor:
    """Position of each token among those that count."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def read_prompts(
    model: IntentVCNetForConditionalGeneration, clips: Sequence[ViewedClip], max_new_tokens: int
) -> SharedPrompts:
    """Read everything but the last tokens of what is asked of these clips, in passes of about `PASS_TOKENS`.

    Raises:
        UserError: with its answer a prompt is longer than the model's window of attention.
    """
    longest = max(len(prompt.input_ids) for clip in clips for prompt in clip.prompts)
    window = getattr(model.config.text_config, "sliding_window", None)
    if window and longest + max_new_tokens > window:
        raise UserError(
            f"a prompt of {longest} tokens and an answer of {max_new_tokens}: this model attends to {window} tokens, "
            "and prompts are shared only where all of one is seen; give fewer frames (--num_frames)"
        )
    batches = (PromptBatch.of(portion, model.config.image_token_id) for portion in _portions(clips))
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


def read_batch(model: IntentVCNetForConditionalGeneration, batch: PromptBatch) -> SharedPrompts:
    """Read the prompts of one pass.

    The ViT's layers below the first adapter see a frame once, whatever the number of boxes on it; the language model
    reads a beginning once, whatever the number of questions that follow it.
    """
    core = model.model
    embeds = _embeds(model, batch)
    cache = DynamicCache(config=model.config.text_config)
    mask = batch.beginning_mask
    # No token sees what is padded behind it, so that no mask is needed: attention then skips what is not seen at all.
    core.language_model(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
    if len(batch.group_of_ask) > len(mask):
        cache.batch_select_indices(batch.group_of_ask)
        mask = mask[batch.group_of_ask]
    if batch.rest_ids.shape[1]:
        mask = torch.cat([mask, batch.rest_mask], dim=1)
        core.language_model(
            input_ids=batch.rest_ids,
            attention_mask=mask,
            position_ids=_positions(mask)[:, -batch.rest_ids.shape[1] :],
            past_key_values=cache,
            use_cache=True,
        )
    return SharedPrompts(cache, mask)


def _embeds(model: IntentVCNetForConditionalGeneration, batch: PromptBatch) -> torch.Tensor:
    """The beginnings, [G, P, width]. Nothing of what the ViT computed on the way is kept."""
    tower, pixels, trunk = model.model.vision_tower, batch.pixel_values, None
    if len(batch.tile_rows) > len(pixels):
        if tower.box_adapters:
            trunk = tower.trunk(pixels)[batch.tile_rows]
        pixels = pixels[batch.tile_rows]
    return model.model.embed_prompt(batch.beginning_ids, pixels, batch.boxes, trunk)
