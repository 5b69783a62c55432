"""Conversation templates of the InternVL family, and which positions of a conversation are learned.

A template belongs to a checkpoint: text, separators and the default system message are what it was trained on. The
label masks are those of the original's training, of which there are four; all but InternVL2.5's tokenise the whole
conversation and then find the assistant's part by the lengths of its pieces, tokenised alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from internvl_chat.constants import IGNORE_INDEX

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# One stretch of a conversation: how many tokens, and whether they are learned.
Stretch = tuple[int, bool]


@dataclass(frozen=True)
class ConversationTemplate:
    """How a conversation is written as text: system, then role + message + separator for each turn.

    Args:
        stretches: cuts the text of a whole conversation into what is learned and what is not; None where turns are
            tokenised one by one.
        first_masked: tokens before the first stretch.
        never_learned: a token that is masked wherever it stands.
        strips_messages: whether white space around a message is removed.
    """

    system_prefix: str
    system_message: str
    user_prefix: str
    assistant_prefix: str
    separator: str
    stretches: Callable[[str, ConversationTemplate, Callable[[str], int]], Iterator[Stretch]] | None = None
    first_masked: int = 0
    never_learned: str | None = None
    strips_messages: bool = False

    def labels(self, text: str, input_ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Labels of a conversation that was tokenised whole; -100 where nothing is learned.

        Where the lengths of the pieces do not add up to the conversation's, nothing of it is learned, with a warning.
        """
        assert self.stretches is not None

        def length_of(piece: str) -> int:
            return len(tokenizer(piece)["input_ids"])

        never = None if self.never_learned is None else tokenizer.convert_tokens_to_ids(self.never_learned)
        labels = [IGNORE_INDEX if token == never else token for token in input_ids]
        position = self.first_masked
        labels[:position] = [IGNORE_INDEX] * position
        for length, learned in self.stretches(text, self, length_of):
            if not learned:
                stop = min(position + length, len(labels))
                labels[position:stop] = [IGNORE_INDEX] * max(0, stop - position)
            position += length
        if position == len(input_ids):
            return labels
        logger.warning(
            "a conversation of %d tokens is not learned from: its pieces tokenise to %d; begins %r",
            len(input_ids),
            position,
            text[-200:],
        )
        return [IGNORE_INDEX] * len(input_ids)


def _internlm2_stretches(
    text: str, template: ConversationTemplate, length_of: Callable[[str], int]
) -> Iterator[Stretch]:
    """Cut at the assistant's prefix. Each piece begins with a BOS of its own, which is not counted."""
    user, assistant = template.user_prefix, template.assistant_prefix
    first, *middle, last = text.split(assistant)
    yield length_of(first + assistant) - 1, False
    for piece in middle:
        answer, _, question = piece.partition(user)
        yield length_of(answer) - 1, True
        yield length_of(user + question + assistant) - 1, False
    yield length_of(last) - 1, True


def _exchanges(text: str, template: ConversationTemplate) -> Iterator[tuple[str, str]]:
    """Each question and answer, the first with the system message, as (instruction, whole), without the separator
    that closes it."""
    separator = template.separator
    turns = text.split(separator)
    cuts = [0, *range(3, len(turns), 2), len(turns)]
    for start, stop in zip(cuts, cuts[1:], strict=False):
        whole = separator.join(turns[start:stop])
        parts = whole.split(separator + template.assistant_prefix)
        if len(parts) != 2:
            return
        yield parts[0] + separator + template.assistant_prefix, whole


def _hermes2_stretches(text: str, template: ConversationTemplate, length_of: Callable[[str], int]) -> Iterator[Stretch]:
    for instruction, whole in _exchanges(text, template):
        masked = length_of(instruction)
        yield masked, False
        yield length_of(whole) + 1 - masked, True


def _phi3_stretches(text: str, template: ConversationTemplate, length_of: Callable[[str], int]) -> Iterator[Stretch]:
    """As Hermes-2. A piece alone begins with a BOS and, but for the first, with a blank that the whole has not."""
    for number, (instruction, whole) in enumerate(_exchanges(text, template)):
        extra = 1 if number == 0 else 2
        masked = length_of(instruction) - extra
        yield masked, False
        yield length_of(whole) + 1 - extra - masked, True


_INTERNVL2_MESSAGE = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
)

# The default system messages are part of what the checkpoints were trained on.
CONVERSATION_TEMPLATES = {
    "internvl2_5": ConversationTemplate(
        system_prefix="<|im_start|>system\n",
        system_message=(
            "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
        ),
        user_prefix="<|im_start|>user\n",
        assistant_prefix="<|im_start|>assistant\n",
        separator="<|im_end|>\n",
    ),
    "internlm2-chat": ConversationTemplate(
        system_prefix="<|im_start|>system\n",
        system_message=_INTERNVL2_MESSAGE,
        user_prefix="<|im_start|>user\n",
        assistant_prefix="<|im_start|>assistant\n",
        separator="<|im_end|>",
        stretches=_internlm2_stretches,
        first_masked=1,
        strips_messages=True,
    ),
    "Hermes-2": ConversationTemplate(
        system_prefix="<|im_start|>system\n",
        system_message=_INTERNVL2_MESSAGE,
        user_prefix="<|im_start|>user\n",
        assistant_prefix="<|im_start|>assistant\n",
        separator="<|im_end|>",
        stretches=_hermes2_stretches,
    ),
    "phi3-chat": ConversationTemplate(
        system_prefix="<|system|>\n",
        system_message=_INTERNVL2_MESSAGE,
        user_prefix="<|user|>\n",
        assistant_prefix="<|assistant|>\n",
        separator="<|end|>",
        stretches=_phi3_stretches,
        first_masked=1,
        never_learned="<|endoftext|>",
    ),
}
