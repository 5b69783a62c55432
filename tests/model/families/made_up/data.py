"""Its data: every picture is one tile, a turn is its text and an end mark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from internvl_chat.contracts import Turn
from internvl_chat.data.media.tiling import WHOLE, View
from internvl_chat.data.media.transforms import TileTransform, normalise
from internvl_chat.data.prompts import conversation
from internvl_chat.data.prompts.encoding import EncodedConversation, encode_pieces, written_turns
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.data.prompts.sample_pictures import SamplePictures
from internvl_chat.vision import Vision

IMAGE_TOKEN = "<pic>"
SPECIAL_TOKENS = (IMAGE_TOKEN,)
_END = "<|im_end|>"


def views(
    sizes_px: Sequence[tuple[int, int]], config: PromptConfig, max_tiles: int, is_video: bool
) -> list[list[View]]:
    return [[View(number, WHOLE)] for number in range(len(sizes_px))]


def pixels(pictures: SamplePictures, views: Sequence[View], config: PromptConfig) -> Vision:
    tiles = TileTransform(config.force_image_size, config.normalize_type).tiles(pictures.read())
    return {"pixel_values": normalise(tiles, config.normalize_type)}


def blank(config: PromptConfig) -> Vision:
    side_px = config.force_image_size
    return {"pixel_values": torch.zeros(1, 3, side_px, side_px), "boxes": torch.zeros(1, 4, dtype=torch.int64)}


def num_tiles(vision: Vision) -> int:
    return len(vision["pixel_values"])


def expand_video(text: str, num_frames: int, config: PromptConfig, extra_lines: Sequence[str]) -> str:
    return conversation.expand_video(text, num_frames, config.frame_label, extra_lines)


def end_tokens(config: PromptConfig) -> tuple[str, ...]:
    return (_END,)


def encode(
    turns: Sequence[Turn], tokenizer: Any, config: PromptConfig, views: Sequence[Sequence[View]]
) -> EncodedConversation:
    pictures = [IMAGE_TOKEN * config.tokens_per_frame * len(of_picture) for of_picture in views]
    _, written = written_turns(turns, pictures, IMAGE_TOKEN)
    pieces = [(f"{turn.text}{_END}", (0, 0) if turn.speaker == "gpt" else None) for turn in written]
    return encode_pieces(pieces, tokenizer)
