"""From a question, a box track and captions to token ids and labels: one builder for training and prediction.

The text is that of IntentVCNet (arXiv 2507.18531), byte for byte; the conversation template is InternVL2.5's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal

from internvl_chat.boxes import BoxArray, is_absent
from internvl_chat.constants import (
    BOX_END,
    BOX_SCALE,
    BOX_START,
    IGNORE_INDEX,
    IMAGE_PLACEHOLDER,
    IMG_CONTEXT,
    IMG_END,
    IMG_START,
    REF_END,
    REF_START,
    VIDEO_PLACEHOLDER,
)
from internvl_chat.contracts import Turn
from internvl_chat.data.prompts.templates import CONVERSATION_TEMPLATES as CONVERSATION_TEMPLATES
from internvl_chat.data.prompts.templates import ConversationTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CoordinateUnit = Literal["thousandths", "percent", "unit"]
FrameLabel = Literal["Frame-1", "Frame1"]

# One object's boxes under the name that the prompt calls it by: [F, 4] in thousandths.
NamedBoxes = tuple[str, BoxArray]

_VIDEO_LINE = VIDEO_PLACEHOLDER + "\n"
# What the side of a picture measures in the unit, and the decimals that a thousandth of it needs.
_UNITS: dict[CoordinateUnit, tuple[int, int]] = {"thousandths": (1000, 0), "percent": (100, 1), "unit": (1, 3)}


class PromptForm(Enum):
    """The questions of IntentVCNet's data: what the model is asked, and how the box reaches it as text or as paint."""

    COORDINATES = "coordinates"
    RED_BOX = "red_box"
    RED_BOX_COORDINATES = "red_box_coordinates"
    TEXT_ONLY = "text_only"

    def question(self, object_name: str) -> str:
        """The question about `object_name`, without the video placeholder and without the coordinate list."""
        return _QUESTIONS[self].format(name=object_name)

    @property
    def lists_coordinates(self) -> bool:
        """Whether the builder appends a coordinate per frame."""
        return self in _LEAD_INS

    @property
    def paints_box(self) -> bool:
        """Whether the box is to be drawn in red into the frames."""
        return self in (PromptForm.RED_BOX, PromptForm.RED_BOX_COORDINATES)

    @property
    def shows_box(self) -> bool:
        """Whether the question speaks of a box, so that there must be one."""
        return self.lists_coordinates or self.paints_box

    @staticmethod
    def of(question: str) -> PromptForm:
        """The form a question has, read off its wording; a question of the user's own counts as text only."""
        text = question.strip()
        return next((form for form, pattern in _PATTERNS.items() if pattern.search(text)), PromptForm.TEXT_ONLY)


_QUESTIONS = {
    PromptForm.COORDINATES: "Describe this video in one sentence, and focus on {name} located in the coordinate list.",
    PromptForm.RED_BOX: "Describe this video in one sentence, and focus on the {name} in the red coordinate box.",
    PromptForm.RED_BOX_COORDINATES: (
        "Describe this video in one sentence, and focus on the {name} in the red coordinate box, "
        "whose coordinates at each frame are:"
    ),
    PromptForm.TEXT_ONLY: "Give this video a description in one sentence.",
}
# What stands between the question and the coordinate list, and what closes the list.
_LEAD_INS = {
    PromptForm.COORDINATES: (" The coordinates in each frame are:\n", "."),
    PromptForm.RED_BOX_COORDINATES: ("\n", "."),
}
_PATTERNS = {
    PromptForm.COORDINATES: re.compile(r"located in the coordinate list\.$"),
    PromptForm.RED_BOX: re.compile(r"in the red coordinate box\.$"),
    PromptForm.RED_BOX_COORDINATES: re.compile(r"in the red coordinate box, whose coordinates at each frame are:$"),
}


_EXACT_QUESTIONS = {
    form: re.compile(re.escape(question).replace(re.escape("{name}"), ".+")) for form, question in _QUESTIONS.items()
}


def reworded(text: str, object_name: str, lists: bool, paints: bool) -> str:
    """A question of IntentVCNet's in the form that goes with a coordinate list, a red box, both or neither.

    Any other question is left as it is.
    """
    form = PromptForm.of(text)
    head, line_break, question = text.rpartition("\n")
    if (form.lists_coordinates, form.paints_box) == (lists, paints):
        return text
    if not _EXACT_QUESTIONS[form].fullmatch(question.strip()):
        return text
    target = next(f for f in PromptForm if (f.lists_coordinates, f.paints_box) == (lists, paints))
    return head + line_break + target.question(object_name)


@dataclass(frozen=True)
class CoordinateStyle:
    """How the coordinate list writes boxes.

    Args:
        unit: what the numbers count: thousandths, percent or (`unit`) fractions of the picture's side.
        decimals: of each number; None writes what a thousandth needs.
        stride: every n-th frame is listed, under its own number.
        absent: what stands for an absent box; `zeros` is a box of zeros, as models trained by the original code saw.
    """

    unit: CoordinateUnit = "thousandths"
    decimals: int | None = None
    stride: int = 1
    absent: str = "absent"

    def place(self, box: Sequence[int], is_present: bool) -> str:
        """One box [4] in thousandths as text."""
        if not is_present and self.absent != "zeros":
            return self.absent
        scale, decimals = _UNITS[self.unit]
        if self.decimals is not None:
            decimals = self.decimals
        numbers = ", ".join(f"{value * scale / BOX_SCALE:.{decimals}f}" for value in box)
        return f"{BOX_START}[[{numbers}]]{BOX_END}"


# As IntentVCNet writes it, but for the absent.
PLAIN_STYLE = CoordinateStyle()


def coordinate_list(tracks: Sequence[NamedBoxes], style: CoordinateStyle = PLAIN_STYLE) -> str:
    """One numbered line a frame: `1. <ref>airplane</ref><box>[[385, 633, 533, 725]]</box>`; numbers start at 1.

    Several objects share the line, separated by commas; an absent one reads `<ref>airplane</ref>absent`.
    """
    lines = []
    for frame in range(0, len(tracks[0][1]), style.stride):
        places = [
            f"{REF_START}{name}{REF_END}{style.place(boxes[frame].tolist(), not is_absent(boxes[frame]))}"
            for name, boxes in tracks
        ]
        lines.append(f"{frame + 1}. {', '.join(places)}\n")
    return "".join(lines)


def with_coordinates(question: str, tracks: Sequence[NamedBoxes], style: CoordinateStyle = PLAIN_STYLE) -> str:
    """The question followed by the coordinate list of these objects, in the words of its form."""
    lead_in, closing = _LEAD_INS.get(PromptForm.of(question), _LEAD_INS[PromptForm.COORDINATES])
    return question + lead_in + coordinate_list(tracks, style) + closing


def frame_line(number: int, label: str = "Frame-1") -> str:
    r"""The line of one frame: `Frame-3: <image>\n`, or `Frame3: <image>\n`."""
    return f"{label[:-1]}{number}: {IMAGE_PLACEHOLDER}\n"


def crop_line(number: int, label: str = "Frame-1") -> str:
    r"""The line of the object cut out of a frame: `Crop of Frame-3: <image>\n`."""
    return f"Crop of {frame_line(number, label)}"


def expand_video(text: str, num_frames: int, label: FrameLabel = "Frame-1", crops: Sequence[int] = ()) -> str:
    r"""Replace `<video>\n` by a labelled `<image>` a frame: `Frame-1: <image>\nFrame-2: <image>\n`.

    Args:
        crops: numbers from 1 of the frames whose crops follow.
    Raises:
        ValueError: the text does not hold exactly one `<video>` followed by a line break.
    """
    if text.count(VIDEO_PLACEHOLDER) != 1 or text.count(_VIDEO_LINE) != 1:
        raise ValueError(
            f"expected one '<video>' followed by a line break in the question, got {text!r}: "
            "write the question as '<video>\\n...'"
        )
    lines = [frame_line(number, label) for number in range(1, num_frames + 1)]
    return text.replace(_VIDEO_LINE, "".join([*lines, *(crop_line(number, label) for number in crops)]))


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
