"""What the families share in writing a conversation as token ids: turns in order, pictures in their places, labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from internvl_chat.constants import IGNORE_INDEX, IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from internvl_chat.contracts import Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A piece of a conversation that is tokenised alone: nothing of it is learned, or what lies between its number of first
# tokens and its number of last ones that are masked.
Piece = tuple[str, tuple[int, int] | None]


@dataclass(frozen=True)
class EncodedConversation:
    """Token ids and labels of the same length; a label is -100 where nothing is learned.

    `position_ids` are None where they count the tokens.
    """

    input_ids: list[int]
    labels: list[int]
    position_ids: list[int] | None = None


def fill_pictures(text: str, pictures: Sequence[str]) -> str:
    """Replace the k-th `<image>` by `pictures[k]`.

    Raises:
        ValueError: the text does not hold one `<image>` an entry.
    """
    first, *others = text.split(IMAGE_PLACEHOLDER)
    if len(others) != len(pictures):
        raise ValueError(f"the conversation has {len(others)} '<image>' placeholders for {len(pictures)} images")
    return first + "".join(picture + part for picture, part in zip(pictures, others, strict=True))


def written_turns(turns: Sequence[Turn], pictures: Sequence[str], picture_token: str) -> tuple[str | None, list[Turn]]:
    """The system's message, if there is one, and the other turns with their pictures written out.

    Args:
        turns: optionally one `system` turn, then `human` and `gpt` in turn.
        pictures: what stands for each `<image>`, in order.
        picture_token: stands for pixels, so that nobody may say it.
    Raises:
        ValueError: an unknown speaker, turns out of order, or placeholders that do not match `pictures`.
    """
    for turn in turns:
        if picture_token in turn.text:
            raise ValueError(f"the turn of {turn.speaker!r} holds {picture_token}, which stands for pixels: reword it")
    system = None
    if turns and turns[0].speaker == "system":
        system, turns = turns[0].text, turns[1:]
    if not turns:
        raise ValueError("the conversation has no turns: expected at least one from 'human'")
    written = []
    left = list(pictures)
    for index, turn in enumerate(turns):
        expected = "gpt" if index % 2 else "human"
        if turn.speaker != expected:
            raise ValueError(f"turn {index + 1} is from {turn.speaker!r}: expected {expected!r}")
        if turn.speaker == "human":
            count = turn.text.count(IMAGE_PLACEHOLDER)
            turn = Turn("human", fill_pictures(turn.text, left[:count]))
            left = left[count:]
        written.append(turn)
    if left:
        raise ValueError(
            f"the conversation has {len(pictures) - len(left)} '<image>' placeholders for {len(pictures)} images"
        )
    return system, written


def refuse_steering(turn: Turn, tokens: Sequence[str]) -> None:
    """See to it that a turn says nothing that would be read as another conversation.

    Raises:
        ValueError: it holds one of these tokens, or a placeholder where nothing is shown.
    """
    if turn.speaker != "human":
        tokens = (IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER, *tokens)
    if held := next((token for token in tokens if token in turn.text), None):
        raise ValueError(
            f"the turn of {turn.speaker!r} holds {held}, which stands for pixels or steers the chat: reword it"
        )


def encode_pieces(pieces: Sequence[Piece], tokenizer: PreTrainedTokenizerBase) -> EncodedConversation:
    """Tokenise pieces one by one, without special tokens of the tokenizer's own."""
    input_ids: list[int] = []
    labels: list[int] = []
    for text, learned in pieces:
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        input_ids += ids
        if learned is None:
            labels += [IGNORE_INDEX] * len(ids)
            continue
        first, last = learned
        stop = len(ids) - last
        labels += [IGNORE_INDEX] * first + ids[first:stop] + [IGNORE_INDEX] * last
    return EncodedConversation(input_ids, labels)


def begins_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer puts its BOS before a text.

    Asked of its behaviour: transformers 5 says `add_bos_token` of tokenizers that never add one.
    """
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
