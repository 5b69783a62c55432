"""A conversation to token ids and labels: one builder for training and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from internvl_chat.constants import (
    IGNORE_INDEX,
    IMAGE_PLACEHOLDER,
    IMG_CONTEXT,
    IMG_END,
    IMG_START,
    VIDEO_PLACEHOLDER,
)
from internvl_chat.contracts import Turn
from internvl_chat.data.prompts.templates import CONVERSATION_TEMPLATES as CONVERSATION_TEMPLATES
from internvl_chat.data.prompts.templates import ConversationTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_VIDEO_LINE = VIDEO_PLACEHOLDER + "\n"


def frame_line(number: int, label: str = "Frame-1") -> str:
    r"""The line of one frame: `Frame-3: <image>\n`, or `Frame3: <image>\n`."""
    return f"{label[:-1]}{number}: {IMAGE_PLACEHOLDER}\n"


def expand_video(text: str, num_frames: int, label: str = "Frame-1", extra_lines: Sequence[str] = ()) -> str:
    r"""Replace `<video>\n` by a labelled `<image>` a frame: `Frame-1: <image>\nFrame-2: <image>\n`.

    Args:
        extra_lines: what follows the frames' lines, each line with its line break.
    Raises:
        ValueError: the text does not hold exactly one `<video>` followed by a line break.
    """
    if text.count(VIDEO_PLACEHOLDER) != 1 or text.count(_VIDEO_LINE) != 1:
        raise ValueError(
            f"expected one '<video>' followed by a line break in the question, got {text!r}: "
            "write the question as '<video>\\n...'"
        )
    lines = [frame_line(number, label) for number in range(1, num_frames + 1)]
    return text.replace(_VIDEO_LINE, "".join([*lines, *extra_lines]))


def expand_images(text: str, image_tokens: Sequence[int]) -> str:
    """Replace the k-th `<image>` by `<img>`, `image_tokens[k]` context tokens and `</img>`.

    Raises:
        ValueError: the text does not hold one `<image>` an entry of `image_tokens`.
    """
    parts = text.split(IMAGE_PLACEHOLDER)
    if len(parts) - 1 != len(image_tokens):
        raise ValueError(f"the conversation has {len(parts) - 1} '<image>' placeholders for {len(image_tokens)} images")
    expanded = [parts[0]]
    for count, part in zip(image_tokens, parts[1:], strict=True):
        expanded.append(IMG_START + IMG_CONTEXT * count + IMG_END + part)
    return "".join(expanded)


@dataclass(frozen=True)
class EncodedConversation:
    """Token ids and labels of the same length; a label is -100 where nothing is learned."""

    input_ids: list[int]
    labels: list[int]


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
    for turn in turns:
        if IMG_CONTEXT in turn.text:
            raise ValueError(f"the turn of {turn.speaker!r} holds {IMG_CONTEXT}, which stands for pixels: reword it")
    system_message = template.system_message
    if turns and turns[0].speaker == "system":
        system_message, turns = turns[0].text, turns[1:]
    if not turns:
        raise ValueError("the conversation has no turns: expected at least one from 'human'")

    pieces: list[tuple[str, bool]] = [(template.system_prefix + system_message + template.separator, False)]
    placeholders_left = list(image_tokens)
    for index, turn in enumerate(turns):
        expected = "gpt" if index % 2 else "human"
        if turn.speaker != expected:
            raise ValueError(f"turn {index + 1} is from {turn.speaker!r}: expected {expected!r}")
        text = turn.text.strip() if template.strips_messages else turn.text
        if turn.speaker == "human":
            count = text.count(IMAGE_PLACEHOLDER)
            text = expand_images(text, placeholders_left[:count])
            placeholders_left = placeholders_left[count:]
            pieces.append((template.user_prefix + text + template.separator, False))
        else:
            pieces.append((template.assistant_prefix + text + template.separator, True))
    if placeholders_left:
        raise ValueError(
            f"the conversation has {len(image_tokens) - len(placeholders_left)} '<image>' placeholders "
            f"for {len(image_tokens)} images"
        )
    return pieces


def _encode_turn_by_turn(
    pieces: Sequence[tuple[str, bool]], tokenizer: PreTrainedTokenizerBase, template: ConversationTemplate
) -> EncodedConversation:
    def ids_of(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    input_ids: list[int] = []
    labels: list[int] = []
    # Asked of the tokenizer's behaviour: transformers 5 says `add_bos_token` of tokenizers that never add one.
    if tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]:
        input_ids.append(tokenizer.bos_token_id)
        labels.append(IGNORE_INDEX)
    num_prefix = len(ids_of(template.assistant_prefix))
    num_trailing = len(ids_of(template.separator)) - 1
    for text, learned in pieces:
        ids = ids_of(text)
        input_ids += ids
        if learned:
            stop = len(ids) - num_trailing
            labels += [IGNORE_INDEX] * num_prefix + ids[num_prefix:stop] + [IGNORE_INDEX] * num_trailing
        else:
            labels += [IGNORE_INDEX] * len(ids)
    return EncodedConversation(input_ids, labels)
