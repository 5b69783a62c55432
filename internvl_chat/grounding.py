"""Boxes in conversations: the question that asks for every object, and the answer that lists them.

A box in text is x1 y1 x2 y2 in thousandths of the picture's side: `<ref>screw</ref><box>[[754, 376, 851, 429]]</box>`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from internvl_chat.constants import BOX_END, BOX_START, REF_END, REF_START

# The two sentences that InternVL's models are trained on for detection.
DETECTION_QUESTION = "Please detect and label all objects in the following image and mark their positions."
# And for the region that a phrase describes.
_REFERRING_QUESTION = "Please provide the bounding box coordinate of the region this sentence describes: "
_DETECTION_OPENING = "Sure, I will detect and label all objects in the image and mark their positions."


@dataclass(frozen=True)
class LabelledBox:
    """A box x1 y1 x2 y2 in thousandths, 0 to 1000, and what is in it; an unknown label is empty."""

    label: str
    box: tuple[float, float, float, float]


def box_text(boxes: Iterable[Sequence[float]]) -> str:
    """Boxes, x1 y1 x2 y2 in whole thousandths, as the models write them: `<box>[[1, 2, 3, 4], [5, 6, 7, 8]]</box>`."""
    lists = (f"[{', '.join(str(int(v)) for v in box)}]" for box in boxes)
    return f"{BOX_START}[{', '.join(lists)}]{BOX_END}"


def referring_question(phrase: str) -> str:
    """The question where a phrase's region is."""
    return f"{_REFERRING_QUESTION}{REF_START}{phrase}{REF_END}"


def nameless_id(line: int) -> str:
    """What a record without an id is called: by its line in the file, from 1."""
    return f"line {line}"


def detection_answer(objects: Sequence[LabelledBox]) -> str:
    """The answer to `DETECTION_QUESTION`: one line a label, in the order in which the labels first appear.

    Source: the grounding section of InternVL's chat data format.
    """
    by_label: dict[str, list[Sequence[float]]] = {}
    for item in objects:
        by_label.setdefault(item.label, []).append(item.box)
    lines = (f"{REF_START}{label}{REF_END}{box_text(boxes)}\n" for label, boxes in by_label.items())
    return f"{_DETECTION_OPENING}\n\n```\n{''.join(lines)}```\n"
