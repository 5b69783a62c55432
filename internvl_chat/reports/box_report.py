"""One self-contained HTML file about boxes in answers: scores, faults, and the predictions drawn over the truth."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools import mask

from internvl_chat.grounding import LabelledBox
from internvl_chat.reports.box_sheet import picture_of
from internvl_chat.reports.html import data_uri, render
from internvl_chat.scoring.box_records import AnsweredQuestion, AnsweredSet
from internvl_chat.scoring.box_scores import MATCH_IOU, class_of, score_boxes, xywh

TEMPLATE = "box_report.html.j2"
PICTURE_PX = 480


@dataclass(frozen=True)
class Card:
    """An answer on the sheet: how many true boxes it missed and how many false ones it found, and what is drawn."""

    name: str
    missed: int
    invented: int
    faults: Sequence[str]
    uri: str
    truth: Sequence[LabelledBox]
    found: Sequence[LabelledBox]


def mistakes(item: AnsweredQuestion) -> tuple[int, int]:
    """True boxes that no predicted one of their class overlaps enough, and predicted boxes left over.

    Each true box takes the first of the best that is free. Where one region is asked for, labels do not count.
    """
    found = list(item.answer.boxes)
    missed = 0
    for true in item.question.truth:
        alike = [box for box in found if item.question.refers or class_of(box) == class_of(true)]
        overlaps = mask.iou(np.array([xywh(box) for box in alike]), np.array([xywh(true)]), [0]) if alike else []
        if len(overlaps) and float(np.max(overlaps)) >= MATCH_IOU:
            found.remove(alike[int(np.argmax(overlaps))])
        else:
            missed += 1
    return missed, len(found)


def _card(item: AnsweredQuestion, root: Path) -> Card:
    question, picture = item.question, picture_of(item.question, root)
    picture.thumbnail((PICTURE_PX, PICTURE_PX))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    faults = list(dict.fromkeys(fault.value for fault in item.answer.faults))
    uri = data_uri("image/jpeg", buffer.getvalue())
    return Card(str(question.image), *mistakes(item), faults, uri, question.truth, item.answer.boxes)


def render_box_report(answers: AnsweredSet, title: str, root: Path | None = None, num_pictures: int = 60) -> str:
    """The report as HTML text; the same input gives the same text.

    Args:
        root: what the records' image paths are relative to; without it no picture is shown.
        num_pictures: at most so many, the worst answers first.
    Raises:
        UserError: a record has no image, or it cannot be read.
    """
    scores = score_boxes(answers)
    worst = sorted(answers.answered, key=lambda item: -sum(mistakes(item)))[:num_pictures] if root else []
    detection = scores.detection
    return render(
        TEMPLATE,
        title=title,
        scores=scores,
        detection={**detection.per_class, "all": detection.overall} if detection else {},
        cards=[_card(item, root) for item in worst] if root else [],
    )
