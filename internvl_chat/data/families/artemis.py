"""Artemis' data: CLIP's centre crop of pictures and frames, one block of slots a video, Vicuna's template.

Shape letters: F frames of a video, T tiles, S the tile's side, L text positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as nnf

from internvl_chat.constants import IGNORE_INDEX, VIDEO_PLACEHOLDER
from internvl_chat.contracts import Turn
from internvl_chat.data.media.tiling import Part, View, cut_tile, squared_part
from internvl_chat.data.media.transforms import normalise
from internvl_chat.data.prompts.encoding import EncodedConversation, written_turns
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.data.prompts.sample_pictures import SamplePictures
from internvl_chat.vision import Vision

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The three are neighbours: the model finds the ids of the second and third behind the first's.
IMAGE_TOKEN, VIDEO_TOKEN, REGION_TOKEN = "<image_patch>", "<video_patch>", "<bbox>"
SPECIAL_TOKENS = (IMAGE_TOKEN, VIDEO_TOKEN, REGION_TOKEN)

# Pooled, a frame that is repeated would weigh more.
SHOWS_FRAMES_ONCE = True
# A video's frames are pooled over time and over space: a token for each of up to so many frames, then one a patch.
_MAX_VIDEO_FRAMES = 100
# An image stands for itself, its own only cell; frames, which have no grid, stand for their video together.
_IMAGE_GRID = (1, 1)
# The training's wording; the original predicts with another, "human" for "user".
_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_USER, _ASSISTANT, _END = "USER: ", "ASSISTANT:", "</s>"


def centre_part(size_px: tuple[int, int]) -> Part:
    """The square in a picture's middle, its shorter side as the side, on whole pixels."""
    width_px, height_px = size_px
    side_px = min(size_px)
    left, top = (width_px - side_px) // 2, (height_px - side_px) // 2
    return (left / width_px, top / height_px, (left + side_px) / width_px, (top + side_px) / height_px)


def views(
    sizes_px: Sequence[tuple[int, int]], config: PromptConfig, max_tiles: int, is_video: bool
) -> list[list[View]]:
    """One tile a picture: its middle, and of an image, where padding is asked for, the square around it."""
    grid = None if is_video else _IMAGE_GRID
    part_of = squared_part if config.pad2square and not is_video else centre_part
    return [[View(number, part_of(size_px), grid)] for number, size_px in enumerate(sizes_px)]


def pixels(pictures: SamplePictures, views: Sequence[View], config: PromptConfig) -> Vision:
    """Every tile's middle, and of a video every frame whole.

    `pixel_values` [T, 3, S, S], with `shown` [T], 1 where a tile is a picture of its own; `video_frames`
    [F, 3, S, S], squashed as Artemis' features were made, with `video_starts` [F], 1 at the first, or in their place
    `video_features` [N, C]; `video_is_stored` [1] says of a video which of the two it has. What regions lie in is the
    middle, as CLIP sees pictures: boxes are brought into it like into any tile.

    Raises:
        UserError: a picture or video cannot be decoded.
    """
    side_px, read = config.force_image_size, pictures.read()
    tiles = [cut_tile(read[view.picture], view.part, side_px, config.fill_colour) for view in views]
    is_video = all(view.grid is None for view in views)
    features = pictures.features() if is_video and pictures.features is not None else None
    whole = [_squashed(picture, side_px) for picture in read] if is_video and features is None else []
    frames = np.stack(whole) if whole else np.empty((0, side_px, side_px, 3), np.uint8)
    return {
        "pixel_values": normalise(np.stack(tiles), config.normalize_type),
        "shown": torch.full((len(tiles),), int(not is_video)),
        "video_frames": normalise(frames, config.normalize_type),
        "video_starts": (torch.arange(len(frames)) == 0).long(),
        # Of one dimension where there are none: it is put together with any width.
        "video_features": torch.zeros(0) if features is None else torch.from_numpy(features),
        "video_is_stored": torch.full((int(is_video),), int(features is not None)),
    }


def _squashed(picture_HW3: np.ndarray, side_px: int) -> np.ndarray:
    """A picture as a square, nearest neighbours, as the original makes its features."""
    resized = nnf.interpolate(torch.from_numpy(picture_HW3).permute(2, 0, 1)[None], size=(side_px, side_px))
    return resized[0].permute(1, 2, 0).numpy()


def blank(config: PromptConfig) -> Vision:
    """One black tile that is neither shown nor boxed."""
    side_px = config.force_image_size
    return {
        "pixel_values": torch.zeros(1, 3, side_px, side_px),
        "shown": torch.zeros(1, dtype=torch.int64),
        "video_frames": torch.zeros(0, 3, side_px, side_px),
        "video_starts": torch.zeros(0, dtype=torch.int64),
        "video_features": torch.zeros(0),
        "video_is_stored": torch.zeros(0, dtype=torch.int64),
        "boxes": torch.zeros(1, 4, dtype=torch.int64),
    }


def num_tiles(vision: Vision) -> int:
    """T and the frames of videos."""
    return len(vision["pixel_values"]) + len(vision["video_frames"])


def expand_video(text: str, num_frames: int, config: PromptConfig, extra_lines: Sequence[str]) -> str:
    """One block of slots for the whole video.

    Raises:
        ValueError: the text does not hold one `<video>`, there are too many frames, or crops are asked for.
    """
    if text.count(VIDEO_PLACEHOLDER) != 1:
        raise ValueError(f"expected one '<video>' in the question, got {text!r}")
    if num_frames > _MAX_VIDEO_FRAMES:
        raise ValueError(f"{num_frames} frames: Artemis is shown at most {_MAX_VIDEO_FRAMES}; give --max_num_frame")
    if extra_lines:
        raise ValueError("Artemis is shown a video as a whole, without crops of it: give --crop_frames 0")
    return text.replace(VIDEO_PLACEHOLDER, VIDEO_TOKEN * (_MAX_VIDEO_FRAMES + config.tokens_per_frame))


def end_tokens(config: PromptConfig) -> tuple[str, ...]:
    """The template's own."""
    return (_END,)


def encode(
    turns: Sequence[Turn],
    tokenizer: PreTrainedTokenizerBase,
    config: PromptConfig,
    views: Sequence[Sequence[View]],
) -> EncodedConversation:
    """Tokenise a conversation in Vicuna's template; learned are the answers, each with its end token.

    `<system> USER: <question> ASSISTANT: <answer></s>USER: ...`, tokenised as one text, as Vicuna's training does: a
    boundary's place is the number of tokens of the text before it.

    Raises:
        ValueError: the turns cannot be written, or their placeholders do not match `views`.
    """
    images = sum(view.grid is not None for of_picture in views for view in of_picture)
    system, written = written_turns(turns, [IMAGE_TOKEN * config.tokens_per_frame] * images, IMAGE_TOKEN)
    text = f"{_SYSTEM if system is None else system} "
    learned: list[tuple[int, int]] = []

    def length() -> int:
        return len(tokenizer(text)["input_ids"])

    for turn in written:
        if turn.speaker == "human":
            text += f"{_USER}{turn.text} {_ASSISTANT}"
        else:
            start = length()
            text += f" {turn.text}{_END}"
            learned.append((start, length()))
    input_ids = list(tokenizer(text)["input_ids"])
    labels = [IGNORE_INDEX] * len(input_ids)
    for start, stop in learned:
        labels[start:stop] = input_ids[start:stop]
    return EncodedConversation(input_ids, labels)
