"""Rotary frequencies that depend on a text's length: which asks may be read and continued together.

Some language models (`longrope` of Phi3, in InternVL2-4B) have other frequencies behind a number of positions.
transformers chooses them for a whole forward pass by the largest position in it. So prompts on different sides of that
number do not share a pass, and no prompt is read in two passes on its two sides. With `dynamic` (InternLM2, Llama) each
position behind the number has its own: keys that were read in one pass would not be those of another, and such prompts
are refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from transformers import PreTrainedConfig

from internvl_chat.families import family_of
from internvl_chat.inference.requests import EncodedClip, ViewedPrompt, shown_length


class Side(Enum):
    """Where a prompt stands: all of it and its answer below the limit, all that is read apart behind it, or neither."""

    BELOW = "below"
    BEHIND = "behind"
    ALONE = "alone"


@dataclass(frozen=True)
class RotaryLimit:
    """Positions up to which a language model has the frequencies of short texts."""

    positions: int
    placeholder_ids: tuple[int, ...]

    @staticmethod
    def of(config: PreTrainedConfig) -> RotaryLimit | None:
        """That of a captioner, or None where length does not matter."""
        rope = config.text_config.rope_parameters
        if rope.get("rope_type") != "longrope":
            return None
        placeholders = family_of(config).parts.placeholder_ids(config)
        return RotaryLimit(rope["original_max_position_embeddings"], placeholders)

    def side(self, prompt: ViewedPrompt, max_new_tokens: int) -> Side:
        """The side of a prompt with its answer."""
        ids = prompt.input_ids
        if len(ids) + max_new_tokens <= self.positions:
            return Side.BELOW
        # What asks of a clip share, and is read before the rest, goes at least as far as the last tile.
        shared = shown_length(ids, self.placeholder_ids)
        return Side.BEHIND if shared > self.positions else Side.ALONE


def longest_read(config: PreTrainedConfig) -> tuple[int, str] | None:
    """Most positions of a prompt with its answer, and why; None where prompts may be of any length.

    Prompts are shared only where all of one is seen, and where a key does not depend on what comes after it.
    """
    text = config.text_config
    if window := getattr(text, "sliding_window", None):
        return window, f"attends to {window} tokens"
    if text.rope_parameters.get("rope_type") == "dynamic":
        return text.max_position_embeddings, f"stretches its positions behind {text.max_position_embeddings} tokens"
    return None


def apart(
    clips: Sequence[EncodedClip], limits: Sequence[RotaryLimit | None], views: Sequence[int], max_new_tokens: int
) -> Iterator[list[EncodedClip]]:
    """The asks of the clips in parts, each of which may share its passes.

    Args:
        limits, views: of each member: its limit, and which of a clip's views it is shown.
    """
    if not any(limits):
        yield list(clips)
        return
    together: dict[tuple[Side, ...], list[EncodedClip]] = defaultdict(list)
    for clip in clips:
        numbers_on: dict[tuple[Side, ...], list[int]] = defaultdict(list)
        for number in range(len(clip.ids)):
            sides = tuple(
                limit.side(clip.views[view].prompts[number], max_new_tokens)
                for limit, view in zip(limits, views, strict=True)
                if limit
            )
            numbers_on[sides].append(number)
        for sides, numbers in numbers_on.items():
            if Side.ALONE in sides:
                yield from ([clip.only([number])] for number in numbers)
            else:
                together[sides].append(clip.only(numbers))
    yield from together.values()
