"""MiniCPM-Llama3-V 2.5's data: pictures in their own shape as patches, Llama 3's headers, answers alone learned.

Shape letters: F pictures shown, N patches of all of them, S a patch's side.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from internvl_chat.constants import IMAGE_PLACEHOLDER
from internvl_chat.contracts import Turn
from internvl_chat.data.media.tiling import WHOLE, View
from internvl_chat.data.media.transforms import normalise
from internvl_chat.data.prompts import conversation
from internvl_chat.data.prompts.encoding import EncodedConversation, Piece, encode_pieces, written_turns
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.data.prompts.sample_pictures import Picture, SamplePictures
from internvl_chat.vision import Vision

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PATCH_PX = 14
IMAGE_TOKEN = "<unk>"
PICTURE_START, PICTURE_END = "<image>", "</image>"
_TURN_END = "<|eot_id|>"
SPECIAL_TOKENS = ("<|start_header_id|>", "<|end_header_id|>", _TURN_END, IMAGE_TOKEN, PICTURE_START, PICTURE_END)
_ROLES = {"system": "system", "human": "user", "gpt": "assistant"}
_AT_PICTURES = re.compile(f"({re.escape(IMAGE_PLACEHOLDER)})")


def views(
    sizes_px: Sequence[tuple[int, int]], config: PromptConfig, max_tiles: int, is_video: bool
) -> list[list[View]]:
    """Every picture as a whole: max_slice_nums 1 of the original."""
    return [[View(number, WHOLE)] for number in range(len(sizes_px))]


def pixels(pictures: SamplePictures, views: Sequence[View], config: PromptConfig) -> Vision:
    """`patches` [N, 3, S, S], picture after picture and row by row, and `grids` [F, 2], rows and columns of each.

    Raises:
        UserError: a picture or video cannot be decoded.
    """
    read = pictures.read()
    cut = [patches_of(_resized(read[view.picture], view, config), config) for view in views]
    return {
        "patches": torch.cat([patches.flatten(0, 1) for patches in cut]),
        "grids": torch.tensor([patches.shape[:2] for patches in cut]),
    }


def _resized(picture: Picture, view: View, config: PromptConfig) -> Picture:
    image = Image.fromarray(picture)
    if view.part != WHOLE:
        x1, y1, x2, y2 = view.part
        edges = (x1 * image.width, y1 * image.height, x2 * image.width, y2 * image.height)
        left, top, right, bottom = (round(edge) for edge in edges)
        canvas = Image.new("RGB", (max(1, right - left), max(1, bottom - top)), config.fill_colour)
        canvas.paste(image, (-left, -top))
        image = canvas
    return np.asarray(image.resize(shown_size(image.size, config.force_image_size), Image.Resampling.BICUBIC))


def shown_size(size_px: tuple[int, int], side_px: int) -> tuple[int, int]:
    """Width and height that a picture is resized to: its own shape with the pixels of a square, in whole patches.

    Source: MiniCPM-V 2.5, arXiv 2408.01800, section 3.2, without slices.
    """
    width_px, height_px = size_px
    shape = width_px / height_px
    height = int(side_px / math.sqrt(shape))
    width = int(height * shape)
    return _whole_patches(width), _whole_patches(height)


def _whole_patches(length_px: int) -> int:
    return max(round(length_px / PATCH_PX), 1) * PATCH_PX


def patches_of(picture: Picture, config: PromptConfig) -> torch.Tensor:
    """A picture [H, W, 3], normalised, as [rows, columns, 3, S, S]."""
    pixels_3HW = normalise(picture[None], config.normalize_type)[0]
    rows = pixels_3HW.unfold(1, PATCH_PX, PATCH_PX).unfold(2, PATCH_PX, PATCH_PX)
    return rows.permute(1, 2, 0, 3, 4)


def blank(config: PromptConfig) -> Vision:
    """One grey patch."""
    return {
        "patches": torch.zeros(1, 3, PATCH_PX, PATCH_PX),
        "grids": torch.ones(1, 2, dtype=torch.int64),
        "boxes": torch.zeros(1, 4, dtype=torch.int64),
    }


def num_tiles(vision: Vision) -> int:
    """F."""
    return len(vision["grids"])


def expand_video(text: str, num_frames: int, config: PromptConfig, extra_lines: Sequence[str]) -> str:
    """An `<image>` a frame, and one an extra view; nothing says their numbers.

    Raises:
        ValueError: the text does not hold exactly one `<video>` followed by a line break.
    """
    return conversation.replace_video(text, f"{IMAGE_PLACEHOLDER}\n" * (num_frames + len(extra_lines)))


def end_tokens(config: PromptConfig) -> tuple[str, ...]:
    """Llama 3's end of a turn."""
    return (_TURN_END,)


def encode(
    turns: Sequence[Turn],
    tokenizer: PreTrainedTokenizerBase,
    config: PromptConfig,
    views: Sequence[Sequence[View]],
) -> EncodedConversation:
    """Tokenise a conversation; learned are the assistant's words and the end of its turn.

    Of several pictures each stands between line breaks of its own, as the original's training joins them. A
    conversation that ends with a `human` turn is a prompt: the assistant's header is appended.

    Raises:
        ValueError: an unknown speaker, turns out of order, or placeholders that do not match `views`.
    """
    pictures = [PICTURE_START + IMAGE_TOKEN * config.tokens_per_frame * len(shown) + PICTURE_END for shown in views]
    if len(pictures) > 1:
        turns = [Turn(turn.speaker, _parted(turn.text) if turn.speaker == "human" else turn.text) for turn in turns]
    system, written = written_turns(turns, pictures, IMAGE_TOKEN)
    pieces: list[Piece] = []
    if tokenizer.bos_token is not None:
        pieces.append((str(tokenizer.bos_token), None))
    if system is not None:
        pieces.append((_said("system", system), None))
    header = _header("gpt")
    masked = len(tokenizer(header, add_special_tokens=False)["input_ids"])
    for turn in written:
        pieces.append((_said(turn.speaker, turn.text), (masked, 0) if turn.speaker == "gpt" else None))
    if turns[-1].speaker == "human":
        pieces.append((header, None))
    return encode_pieces(pieces, tokenizer)


def _parted(text: str) -> str:
    return "\n".join(_AT_PICTURES.split(text)) if IMAGE_PLACEHOLDER in text else text


def _header(speaker: str) -> str:
    return f"<|start_header_id|>{_ROLES[speaker]}<|end_header_id|>\n\n"


def _said(speaker: str, text: str) -> str:
    return f"{_header(speaker)}{text.strip()}{_TURN_END}"
