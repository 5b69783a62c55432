"""Idefics3's data: pictures cut by transformers' own image processor, tiles told apart by row and column.

Shape letters: T tiles, S the tile's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from math import isqrt
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import Idefics3ImageProcessor

from internvl_chat.constants import IMAGE_PLACEHOLDER, NORMALISATIONS
from internvl_chat.contracts import Turn
from internvl_chat.data.media.tiling import WHOLE, View, grid_views
from internvl_chat.data.prompts import conversation
from internvl_chat.data.prompts.encoding import EncodedConversation, Piece, encode_pieces, written_turns
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.data.prompts.sample_pictures import Picture, SamplePictures
from internvl_chat.vision import Vision

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IMAGE_TOKEN = "<image>"
_AROUND, _WHOLE_PICTURE, _END = "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"
SPECIAL_TOKENS = (_AROUND, IMAGE_TOKEN, _END)
# A picture that is not cut is brought to this many tiles, too, before it is squashed to one: so the processor has it.
_WHOLE_SCALE = 4
_ROLES = {"human": "User:", "gpt": "Assistant:"}


@lru_cache(maxsize=4)
def _processor(tile_px: int, scale: int, normalize_type: str) -> Idefics3ImageProcessor:
    """transformers' own; a picture's longer side becomes `scale` tiles before it is cut."""
    mean, std = NORMALISATIONS[normalize_type]
    return Idefics3ImageProcessor(
        size={"longest_edge": scale * tile_px},
        max_image_size={"longest_edge": tile_px},
        image_mean=list(mean),
        image_std=list(std),
    )


def _processor_for(config: PromptConfig, max_tiles: int) -> Idefics3ImageProcessor:
    return _processor(config.force_image_size, isqrt(max_tiles), config.normalize_type)


def views(
    sizes_px: Sequence[tuple[int, int]], config: PromptConfig, max_tiles: int, is_video: bool
) -> list[list[View]]:
    """Of an image the cells of its grid, row by row, and the whole at the end; of a frame the whole."""
    if is_video or not config.dynamic_image_size:
        return [[View(number, WHOLE)] for number in range(len(sizes_px))]
    processor = _processor_for(config, max_tiles)
    shown = []
    for number, (width_px, height_px) in enumerate(sizes_px):
        _, rows, columns = processor.get_number_of_image_patches(height_px, width_px)
        shown.append(grid_views(number, max(1, columns), max(1, rows), use_thumbnail=True))
    return shown


def pixels(pictures: SamplePictures, views: Sequence[View], config: PromptConfig) -> Vision:
    """`pixel_values` [T, 3, S, S].

    Raises:
        UserError: a picture or video cannot be decoded.
    """
    read = pictures.read()
    tiles = []
    for (number, part), run in groupby(views, key=_drawn_together):
        grid = next(iter(run)).grid
        # The processor gives the whole behind the cells: both are drawn in one go.
        scale = max(grid) if grid else _WHOLE_SCALE
        processor = _processor(config.force_image_size, scale, config.normalize_type)
        picture = _cut(read[number], part) if grid is None else read[number]
        planes = torch.from_numpy(np.require(picture, requirements=["C", "W"])).permute(2, 0, 1)
        shown = processor(planes, do_image_splitting=grid is not None, return_tensors="pt")
        tiles.append(shown["pixel_values"][0])
    return {"pixel_values": torch.cat(tiles)}


def _drawn_together(view: View) -> tuple[int, tuple[float, float, float, float]]:
    return view.picture, WHOLE if view.grid else view.part


def _cut(picture: Picture, part: tuple[float, float, float, float]) -> Picture:
    """The part of a picture [H, W, 3], at least one pixel of it."""
    height_px, width_px = picture.shape[:2]
    x1, y1, x2, y2 = part
    left, top = min(round(x1 * width_px), width_px - 1), min(round(y1 * height_px), height_px - 1)
    right, bottom = max(round(x2 * width_px), left + 1), max(round(y2 * height_px), top + 1)
    return picture[top:bottom, left:right]


def blank(config: PromptConfig) -> Vision:
    """One tile of zeros."""
    return {"pixel_values": torch.zeros(1, 3, config.force_image_size, config.force_image_size)}


def num_tiles(vision: Vision) -> int:
    """T."""
    return len(vision["pixel_values"])


def expand_video(text: str, num_frames: int, config: PromptConfig, extra_lines: Sequence[str]) -> str:
    """A labelled line a frame, then those of the controls.

    Raises:
        ValueError: the text does not hold exactly one `<video>` followed by a line break.
    """
    return conversation.expand_video(text, num_frames, config.frame_label, extra_lines)


def end_tokens(config: PromptConfig) -> tuple[str, ...]:
    """The chat's own end mark."""
    return (_END,)


def encode(
    turns: Sequence[Turn],
    tokenizer: PreTrainedTokenizerBase,
    config: PromptConfig,
    views: Sequence[Sequence[View]],
) -> EncodedConversation:
    """Tokenise a conversation as the model's own chat template writes it; learned are answers and their end mark.

    A conversation that ends with a `human` turn is a prompt.

    Raises:
        ValueError: turns out of order, or placeholders that do not match `views`.
    """
    for turn in turns:
        if turn.speaker != "human" and IMAGE_PLACEHOLDER in turn.text:
            raise ValueError(f"the turn of {turn.speaker!r} holds {IMAGE_TOKEN}, which stands for pixels: reword it")
    system, written = written_turns(turns, [_tile_marks(v, config.tokens_per_frame) for v in views], _AROUND)
    num_trailing = len(tokenizer("\n", add_special_tokens=False)["input_ids"])
    pieces: list[Piece] = [(str(tokenizer.bos_token), None)] if tokenizer.bos_token else []
    if system is not None:
        pieces.append((f"System: {system}{_END}\n", None))
    for turn in written:
        # A picture follows its role at once, words after a blank.
        blank_between = "" if turn.text.startswith(_AROUND) else " "
        text = f"{blank_between}{turn.text}{_END}\n"
        if turn.speaker == "human":
            pieces.append((_ROLES["human"] + text, None))
        else:
            pieces += [(_ROLES["gpt"], None), (text, (0, num_trailing))]
    if written[-1].speaker == "human":
        pieces.append((_ROLES["gpt"], None))
    return encode_pieces(pieces, tokenizer)


def _tile_marks(views: Sequence[View], tokens_per_tile: int) -> str:
    """A picture in the text: each tile's `<image>` tokens behind its mark."""
    tokens = IMAGE_TOKEN * tokens_per_tile
    whole = f"{_AROUND}{_WHOLE_PICTURE}{tokens}{_AROUND}"
    grid = views[0].grid
    if grid is None:
        return whole
    columns, rows = grid
    lines = (
        "".join(f"{_AROUND}<row_{row}_col_{column}>{tokens}" for column in range(1, columns + 1)) + "\n"
        for row in range(1, rows + 1)
    )
    return "".join(lines) + "\n" + whole
