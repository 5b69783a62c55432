"""Boxes in conversations: the question that asks for every object, and the answer that lists them.

A box in text is x1 y1 x2 y2 in thousandths of the picture's side: `<ref>screw</ref><box>[[754, 376, 851, 429]]</box>`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from internvl_chat.constants import BOX_END, BOX_SCALE, BOX_START, REF_END, REF_START
from internvl_chat.contracts import UserError

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


@dataclass(frozen=True)
class ReferredRegion:
    """A phrase and the region that it describes: x1 y1 x2 y2 in pixels of a picture of width and height `size_px`."""

    phrase: str
    corners_px: tuple[float, float, float, float]
    size_px: tuple[int, int]

    @staticmethod
    def of_record(record: Mapping[str, Any], source: str) -> ReferredRegion:
        """A line of RefCOCO's JSONL: `{"sent", "bbox": [x1, y1, x2, y2] in pixels, "width", "height"}`.

        Raises:
            UserError: a key is missing or not what is expected, or the box has no area.
        """
        phrase, box, size = record.get("sent"), record.get("bbox"), (record.get("width"), record.get("height"))
        if type(phrase) is not str:
            raise UserError(f"{source}: {_shortened(record)}: 'sent' is {_shortened(phrase)}: expected a text")
        if not all(type(side) is int and side > 0 for side in size):
            raise UserError(f"{source}: {_shortened(record)}: expected 'width' and 'height' in pixels")
        if not isinstance(box, list) or len(box) != 4 or not all(type(v) in (int, float) for v in box):
            raise UserError(f"{source}: {_shortened(record)}: expected 'bbox' as x1 y1 x2 y2 in pixels")
        x1, y1, x2, y2 = map(float, box)
        if not all(map(math.isfinite, (x1, y1, x2, y2))) or x2 <= x1 or y2 <= y1:
            raise UserError(f"{source}: bbox {box} in {size[0]} x {size[1]} pixels has no area")
        return ReferredRegion(phrase, (x1, y1, x2, y2), (int(size[0]), int(size[1])))  # type: ignore[arg-type]

    def in_thousandths(self) -> LabelledBox:
        """The phrase with its box in thousandths, not rounded."""
        across, down = (BOX_SCALE / side for side in self.size_px)
        x1, y1, x2, y2 = self.corners_px
        return LabelledBox(self.phrase, (x1 * across, y1 * down, x2 * across, y2 * down))


def _shortened(value: object) -> str:
    return f"{value!r:.80}"
