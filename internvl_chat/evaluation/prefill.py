"""The prompt is read once: keys and values of what the asks of a clip have in common, then of what is their own.

Shape letters: A asks, G groups of asks with the same beginning (clip and boxes), F tiles of all clips, E tiles of all
groups, P positions of the beginnings, R positions of the rests, S the tile's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from internvl_chat.evaluation.asks import ViewedClip
from internvl_chat.model import IntentVCNetForConditionalGeneration
from internvl_chat.model.shared_prompt import SharedPrompts


@dataclass(frozen=True)
class PromptBatch:
    """The prompts of a batch, each in three parts: a beginning that asks share, a rest, and the last token.

    Everything is padded on the left. `tile_rows` [E] says which of the tiles each group shows, `boxes` [E, 4] where
    its object is in them, `group_of_ask` [A] which beginning an ask continues.
    """

    beginning_ids: torch.Tensor  # [G, P]
    beginning_mask: torch.Tensor
    rest_ids: torch.Tensor  # [A, R]
    rest_mask: torch.Tensor
    last_ids: torch.Tensor  # [A, 1]
    group_of_ask: torch.Tensor
    pixel_values: torch.Tensor  # [F, 3, S, S]
    tile_rows: torch.Tensor
    boxes: torch.Tensor

    @staticmethod
    def of(clips: Sequence[ViewedClip], image_token_id: int) -> PromptBatch:
        """Lay out the asks of these clips, in order; those share a beginning that agree up to their last tile."""
        beginnings: list[list[int]] = []
        rests: list[list[int]] = []
        last: list[int] = []
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
                last.append(prompt.input_ids[-1])
        beginning_ids, beginning_mask = _left_padded(beginnings)
        rest_ids, rest_mask = _left_padded(rests)
        return PromptBatch(
            beginning_ids,
            beginning_mask,
            rest_ids,
            rest_mask,
            torch.tensor(last)[:, None],
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


def _left_padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask [rows, longest]."""
    ids = pad_sequence([torch.tensor(r, dtype=torch.long) for r in rows], batch_first=True, padding_side="left")
    lengths = torch.tensor([len(row) for row in rows])
    positions = torch.arange(ids.shape[1])
    return ids, (positions >= ids.shape[1] - lengths[:, None]).long()


def _positions(mask: torch.Tensor) -> torch.Tensor:
    """Position of each token among those that count."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def read_prompts(model: IntentVCNetForConditionalGeneration, batch: PromptBatch) -> SharedPrompts:
    """Read everything but the last tokens.

    The ViT's layers below the first adapter see a frame once, whatever the number of boxes on it; the language model
    reads a beginning once, whatever the number of questions that follow it.
    """
    core = model.model
    pixels, trunk = batch.pixel_values, None
    if len(batch.tile_rows) > len(pixels):
        if core.vision_tower.box_adapters:
            trunk = core.vision_tower.trunk(pixels)[batch.tile_rows]
        pixels = pixels[batch.tile_rows]
    embeds = core.embed_prompt(batch.beginning_ids, pixels, batch.boxes, trunk)
    cache = DynamicCache(config=model.config.text_config)
    mask = batch.beginning_mask
    core.language_model(
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=_positions(mask),
        past_key_values=cache,
        use_cache=True,
    )
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
