"""InternVL's data: pictures cut into tiles, a tile's context tokens between `<img>` and `</img>`, five templates.

Shape letters: F pictures shown (frames or images), T tiles, S the tile's side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from internvl_chat.constants import IGNORE_INDEX, IMG_CONTEXT, IMG_END, IMG_START, NORMALISATIONS, REGION_PLACEHOLDER
from internvl_chat.constants import SPECIAL_TOKENS as SPECIAL_TOKENS
from internvl_chat.contracts import Turn
from internvl_chat.data.families.internvl_templates import CONVERSATION_TEMPLATES, ConversationTemplate
from internvl_chat.data.media.sources import Pictures
from internvl_chat.data.media.tiling import WHOLE, View, choose_grid, cut_grid, cut_tile, grid_views, squared_part
from internvl_chat.data.media.transforms import TileTransform
from internvl_chat.data.prompts import conversation
from internvl_chat.data.prompts.encoding import (
    EncodedConversation,
    Piece,
    begins_with_bos,
    encode_pieces,
    written_turns,
)
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.data.prompts.sample_pictures import SamplePictures
from internvl_chat.vision import Vision

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IMAGE_TOKEN = IMG_CONTEXT
# A token that InternVL's tokenizers have and its texts never use: region tokens cost no new row.
REGION_TOKEN = "<quad>"


def views(
    sizes_px: Sequence[tuple[int, int]], config: PromptConfig, max_tiles: int, is_video: bool
) -> list[list[View]]:
    """The tiles of each picture shown: of an image its grid, of a frame always one."""
    shown = []
    for number, size_px in enumerate(sizes_px):
        if config.dynamic_image_size and not is_video:
            grid = choose_grid(size_px, min(config.min_dynamic_patch, max_tiles), max_tiles, config.force_image_size)
            shown.append(grid_views(number, *grid, config.use_thumbnail))
        else:
            shown.append([View(number, squared_part(size_px) if config.pad2square else WHOLE)])
    return shown


def pixels(pictures: SamplePictures, views: Sequence[View], config: PromptConfig) -> Vision:
    """Every tile squashed to a square: `pixel_values` [T, 3, S, S] uint8, and `normalisation` [T] uint8.

    What the bytes stand for is looked up on the device, see `model/pixels.py`.

    Raises:
        UserError: a picture or video cannot be decoded.
    """
    transform = TileTransform(config.force_image_size, config.normalize_type)
    if pictures.frame_tiles is not None:
        tiles_TSS3 = pictures.frame_tiles(transform.tiles)
    else:
        tiles_TSS3 = np.concatenate(list(_tiles(pictures.read(), views, config, transform)))
    planes = torch.from_numpy(tiles_TSS3).permute(0, 3, 1, 2).contiguous()
    way = list(NORMALISATIONS).index(config.normalize_type)
    return {"pixel_values": planes, "normalisation": torch.full((len(planes),), way, dtype=torch.uint8)}


def _tiles(
    read: Pictures, views: Sequence[View], config: PromptConfig, transform: TileTransform
) -> Iterator[npt.NDArray[np.uint8]]:
    """The tiles of neighbours that are drawn alike, [n, S, S, 3]."""
    side_px = config.force_image_size
    for (grid, is_whole, _), run in groupby(views, key=_drawn_alike):
        alike = list(run)
        if grid is not None:
            yield transform.tiles(cut_grid(read[alike[0].picture], grid, side_px))
        elif not is_whole:
            yield transform.tiles([cut_tile(read[v.picture], v.part, side_px, config.fill_colour) for v in alike])
        else:
            yield transform.tiles([read[view.picture] for view in alike])


def _drawn_alike(view: View) -> tuple[tuple[int, int] | None, bool, int]:
    """Neighbours that share it are drawn in one go: the cells of one picture's grid, whole pictures, other parts."""
    return view.grid, view.part == WHOLE, -1 if view.grid is None else view.picture


def blank(config: PromptConfig) -> Vision:
    """One black tile without a box."""
    side_px = config.force_image_size
    return {"pixel_values": torch.zeros(1, 3, side_px, side_px), "boxes": torch.zeros(1, 4, dtype=torch.int64)}


def num_tiles(vision: Vision) -> int:
    """T."""
    return len(vision["pixel_values"])


def expand_video(text: str, num_frames: int, config: PromptConfig, extra_lines: Sequence[str]) -> str:
    """A labelled line a frame, and then those that controls add.

    Raises:
        ValueError: the text does not hold exactly one `<video>` followed by a line break.
    """
    return conversation.expand_video(text, num_frames, config.frame_label, extra_lines)


def end_tokens(config: PromptConfig) -> tuple[str, ...]:
    """The template's own end mark, whatever a base's generation settings say."""
    return (CONVERSATION_TEMPLATES[config.conv_style].separator.strip(),)


def encode(
    turns: Sequence[Turn],
    tokenizer: PreTrainedTokenizerBase,
    config: PromptConfig,
    views: Sequence[Sequence[View]],
) -> EncodedConversation:
    """Tokenise a conversation, `tokens_per_frame` context tokens a tile; see `encode_conversation`."""
    image_tokens = [config.tokens_per_frame * len(of_picture) for of_picture in views]
    return encode_conversation(turns, tokenizer, CONVERSATION_TEMPLATES[config.conv_style], image_tokens)


def encode_conversation(
    turns: Sequence[Turn],
    tokenizer: PreTrainedTokenizerBase,
    template: ConversationTemplate,
    image_tokens: Sequence[int] = (),
) -> EncodedConversation:
    """Tokenise a conversation as the original's training does for this template.

    InternVL2.5's tokenises each turn alone: learned are the content of a `gpt` turn and its `<|im_end|>`; its role
    prefix, the line break after it and every other turn are masked. The others tokenise the whole conversation, see
    `ConversationTemplate.labels`. A conversation that ends with a `human` turn is a prompt: the assistant's prefix is
    appended, ready for generation.

    Args:
        turns: optionally one `system` turn (it replaces the template's own message), then `human` and `gpt` in turn.
        image_tokens: context tokens of each `<image>`, in order.
    Raises:
        ValueError: an unknown speaker, turns out of order, or placeholders that do not match `image_tokens`.
    """
    pieces = _written_turns(turns, template, image_tokens)
    is_prompt = turns[-1].speaker == "human"
    if is_prompt:
        pieces.append((template.assistant_prefix, False))
    if template.stretches is None:
        return _encode_turn_by_turn(pieces, tokenizer, template)
    text = "".join(piece for piece, _ in pieces)
    input_ids = list(tokenizer(text)["input_ids"])
    labels = [IGNORE_INDEX] * len(input_ids) if is_prompt else template.labels(text, input_ids, tokenizer)
    return EncodedConversation(input_ids, labels)


def _written_turns(
    turns: Sequence[Turn], template: ConversationTemplate, image_tokens: Sequence[int]
) -> list[tuple[str, bool]]:
    """Each turn as text with its prefix and separator, the system's first, and whether it is the assistant's."""
    pictures = [IMG_START + IMG_CONTEXT * count + IMG_END for count in image_tokens]
    if template.strips_messages:
        turns = [turn if turn.speaker == "system" else Turn(turn.speaker, turn.text.strip()) for turn in turns]
    system, written = written_turns(turns, pictures, IMG_CONTEXT)
    written = [Turn(turn.speaker, turn.text.replace(REGION_PLACEHOLDER, REGION_TOKEN)) for turn in written]
    message = template.system_message if system is None else system
    pieces = [(template.system_prefix + message + template.separator, False)]
    for turn in written:
        learned = turn.speaker == "gpt"
        prefix = template.assistant_prefix if learned else template.user_prefix
        pieces.append((prefix + turn.text + template.separator, learned))
    return pieces


def _encode_turn_by_turn(
    pieces: Sequence[tuple[str, bool]], tokenizer: PreTrainedTokenizerBase, template: ConversationTemplate
) -> EncodedConversation:
    def length_of(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    masked = (length_of(template.assistant_prefix), length_of(template.separator) - 1)
    cut: list[Piece] = [(text, masked if learned else None) for text, learned in pieces]
    if begins_with_bos(tokenizer):
        cut.insert(0, (str(tokenizer.bos_token), None))
    return encode_pieces(cut, tokenizer)
