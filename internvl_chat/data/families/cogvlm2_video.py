"""CogVLM2-Video's data: frames whole, a block of them before the first question, three templates.

A prompt is a begin of text, the frames, and the conversation as one text. The `chat` and `vqa` templates put a frame's
number, from 0, behind its tokens; with a frame a second it reads as seconds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from internvl_chat.constants import IMAGE_PLACEHOLDER
from internvl_chat.contracts import Turn
from internvl_chat.data.media.tiling import WHOLE, View
from internvl_chat.data.prompts.conversation import replace_video
from internvl_chat.data.prompts.encoding import EncodedConversation, Piece, encode_pieces, written_turns
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.data.prompts.sample_pictures import SamplePictures
from internvl_chat.families.clip_frames import frame_pixels
from internvl_chat.vision import Vision

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BEGIN, _END = "<|begin_of_text|>", "<|end_of_text|>"
# The original fills the places of frames with its padding token, which could not be told from padding. Embeddings are
# laid over them, so that any token does that a text never holds.
IMAGE_TOKEN = "<|reserved_special_token_1|>"
SPECIAL_TOKENS = (_BEGIN, _END, IMAGE_TOKEN)

_PICTURES_FIRST = re.compile(rf"(?:{re.escape(IMAGE_PLACEHOLDER)}\n?)*")


@dataclass(frozen=True)
class _Template:
    """How questions and answers are written, `{}` in place of a question, and whether frames are numbered."""

    question: str
    numbers_frames: bool


_TEMPLATES = {
    "cogvlm2-chat": _Template("Question: {} Answer:", True),
    "cogvlm2-vqa": _Template("Question: {} Short answer:", True),
    "cogvlm2-base": _Template("{}", False),
}


def views(
    sizes_px: Sequence[tuple[int, int]], config: PromptConfig, max_tiles: int, is_video: bool
) -> list[list[View]]:
    """Every picture is one view."""
    return [[View(number, WHOLE)] for number in range(len(sizes_px))]


def pixels(pictures: SamplePictures, views: Sequence[View], config: PromptConfig) -> Vision:
    """`pixel_values` [F, 3, S, S], see `frame_pixels`.

    Raises:
        UserError: a picture or video cannot be decoded.
    """
    read = pictures.read()
    frames = (torch.from_numpy(np.ascontiguousarray(read[view.picture])).permute(2, 0, 1) for view in views)
    return {"pixel_values": frame_pixels(frames, config.force_image_size)}


def blank(config: PromptConfig) -> Vision:
    """One frame of mean colour, without a box."""
    side_px = config.force_image_size
    return {"pixel_values": torch.zeros(1, 3, side_px, side_px), "boxes": torch.zeros(1, 4, dtype=torch.int64)}


def num_tiles(vision: Vision) -> int:
    """F."""
    return len(vision["pixel_values"])


def expand_video(text: str, num_frames: int, config: PromptConfig, extra_lines: Sequence[str]) -> str:
    """An `<image>` a frame, side by side.

    Raises:
        ValueError: the text does not hold exactly one `<video>` followed by a line break, or a control shows crops.
    """
    if extra_lines:
        raise ValueError("this model's prompts have no place for crops: set --crop_frames 0")
    return replace_video(text, IMAGE_PLACEHOLDER * num_frames)


def end_tokens(config: PromptConfig) -> tuple[str, ...]:
    """The end of text."""
    return (_END,)


def encode(
    turns: Sequence[Turn],
    tokenizer: PreTrainedTokenizerBase,
    config: PromptConfig,
    views: Sequence[Sequence[View]],
) -> EncodedConversation:
    """Tokenise a conversation: what is before its last answer as one text, as in prediction; that answer is learned.

    Raises:
        ValueError: turns out of order, a system's message, or pictures that do not stand before the first question.
    """
    template = _TEMPLATES[config.conv_style]
    questions, answers = _exchanges(turns, len(views))
    pieces: list[Piece] = [(_BEGIN, None)]
    for number in range(len(views)):
        pieces.append((IMAGE_TOKEN * config.tokens_per_frame, None))
        if template.numbers_frames:
            pieces.append((str(number), None))
    asked = [template.question.format(question) for question in questions]
    history = "".join(f"{question} {answer}\n" for question, answer in zip(asked[:-1], answers, strict=False))
    pieces.append((history + asked[-1], None))
    for answer in answers[len(asked) - 1 :]:
        pieces += [(f" {answer}", (0, 0)), (_END, (0, 0))]
    encoded = encode_pieces(pieces, tokenizer)
    is_visual = np.array(encoded.input_ids) == tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    return replace(encoded, position_ids=position_ids_of(is_visual).tolist())


def _exchanges(turns: Sequence[Turn], num_pictures: int) -> tuple[list[str], list[str]]:
    """The questions, without their placeholders, and the answers."""
    system, written = written_turns(turns, [""] * num_pictures, IMAGE_TOKEN)
    if system is not None:
        raise ValueError("this model's prompts have no place for a system's message")
    first = next(turn.text for turn in turns if turn.speaker == "human")
    shown = _PICTURES_FIRST.match(first)
    if shown is None or shown[0].count(IMAGE_PLACEHOLDER) != num_pictures:
        raise ValueError(f"this model's pictures all stand before the first question, got {first[:80]!r}")
    questions = [turn.text for turn in written if turn.speaker == "human"]
    return [first[shown.end() :], *questions[1:]], [turn.text for turn in written if turn.speaker == "gpt"]


def position_ids_of(is_visual_L: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Positions [L] of a prompt: those inside an unbroken run of visual tokens share one, all others count on."""
    walled = np.pad(is_visual_L, 1)
    is_inside = walled[:-2] & walled[1:-1] & walled[2:]
    return np.cumsum(np.r_[False, ~(is_inside[1:] & is_inside[:-1])])
