"""Scores of boxes: Precision@1 where one region is asked for, COCO's average precision where all objects are.

IoU does not change when the axes are scaled, so thousandths serve as pixels. Labels are compared without regard to case
and spacing.
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from internvl_chat.grounding import LabelledBox
from internvl_chat.scoring.box_records import AnsweredQuestion, AnsweredSet

MATCH_IOU = 0.5
# COCO's own limit of boxes a picture; raised where an answer has more, so that none goes unseen.
MIN_DETECTIONS = 100


@dataclass(frozen=True)
class ClassScores:
    """One class, or all of them: precision, recall and F1 at IoU 0.5; AP is None where there is no true box."""

    true_boxes: int
    predicted_boxes: int
    ap50: float | None
    ap50_95: float | None
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class DetectionScores:
    """`overall` has the mean AP over classes with true boxes, and counts over all classes."""

    images: int
    overall: ClassScores
    per_class: dict[str, ClassScores]


@dataclass(frozen=True)
class ReferringScores:
    """Precision@1: the share of answers whose first readable box has an IoU of 0.5 or more with a true one."""

    answers: int
    correct: int
    precision_at_1: float


@dataclass(frozen=True)
class GroundingReport:
    """Every answer counts in `answers`, and in the scores, however malformed it is.

    `faults` is how many answers have a fault of each kind; `without_box` how many have no box that can be read, and
    `unread_detection` how many of these were asked for all boxes of a picture.
    """

    answers: int
    malformed: int
    without_box: int
    unread_detection: int
    faults: dict[str, int]
    turns_without_boxes: int
    predictions_without_reference: int
    referring: ReferringScores | None
    detection: DetectionScores | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self) -> str:
        lines = [f"answers: {self.answers}, malformed: {self.malformed}, without a readable box: {self.without_box}"]
        lines += [f"  {kind:<22}{count:>6}" for kind, count in self.faults.items()]
        if self.turns_without_boxes or self.predictions_without_reference:
            lines.append(
                f"not scored: {self.turns_without_boxes} turns whose reference has no box, "
                f"{self.predictions_without_reference} predictions without a reference"
            )
        if self.referring:
            asked = self.referring
            lines.append(f"Precision@1: {asked.precision_at_1:.4f} ({asked.correct} of {asked.answers}, IoU >= 0.5)")
        if self.detection:
            lines.append(f"detection on {self.detection.images} answers, counts at IoU 0.5:")
            lines.append(
                f"  {'class':<22}{'true':>7}{'found':>7}{'AP50':>9}{'AP50:95':>9}{'prec.':>9}{'recall':>9}{'F1':>9}"
            )
            rows = {**self.detection.per_class, "all": self.detection.overall}
            lines += [_row(label or "(no label)", scores) for label, scores in rows.items()]
        return "\n".join(lines) + "\n"


def _row(label: str, scores: ClassScores) -> str:
    rates = (scores.ap50, scores.ap50_95, scores.precision, scores.recall, scores.f1)
    cells = "".join(f"{'-' if rate is None else f'{rate:.4f}':>9}" for rate in rates)
    return f"  {label[:21]:<22}{scores.true_boxes:>7}{scores.predicted_boxes:>7}{cells}"


def score_boxes(answers: AnsweredSet) -> GroundingReport:
    """Score every answered question of a set."""
    referring = [item for item in answers.answered if item.question.refers]
    detection = [item for item in answers.answered if not item.question.refers]
    faults = Counter(kind for item in answers.answered for kind in {fault.value for fault in item.answer.faults})
    return GroundingReport(
        answers=len(answers.answered),
        malformed=sum(bool(item.answer.faults) for item in answers.answered),
        without_box=sum(not item.answer.boxes for item in answers.answered),
        unread_detection=sum(not item.answer.boxes for item in detection),
        faults=dict(faults.most_common()),
        turns_without_boxes=answers.turns_without_boxes,
        predictions_without_reference=answers.predictions_without_reference,
        referring=_referring_scores(referring) if referring else None,
        detection=detection_scores(detection) if detection else None,
    )


def _referring_scores(items: Sequence[AnsweredQuestion]) -> ReferringScores:
    correct = 0
    for item in items:
        first = [xywh(box) for box in item.answer.boxes[:1]]
        truth = [xywh(box) for box in item.question.truth]
        if first:
            overlaps = mask.iou(np.array(first), np.array(truth), [0] * len(truth))
            correct += bool(overlaps.max() >= MATCH_IOU)
    return ReferringScores(len(items), correct, correct / len(items))


def xywh(item: LabelledBox) -> list[float]:
    """The box as COCO has it: corner, width and height."""
    x1, y1, x2, y2 = item.box
    return [x1, y1, x2 - x1, y2 - y1]


def class_of(item: LabelledBox) -> str:
    """The label as labels are compared."""
    return " ".join(item.label.split()).casefold()


def detection_scores(items: Sequence[AnsweredQuestion]) -> DetectionScores:
    """COCO's evaluation with each answer as a picture; boxes without a confidence count in the order of the files.

    Args:
        items: at least one; their boxes in thousandths.
    Source: pycocotools, IoU 0.50:0.05:0.95, 101 recall points, all areas.
    """
    boxes = [box for item in items for box in (*item.question.truth, *item.answer.boxes)]
    labels = sorted({class_of(box) for box in boxes})
    # pycocotools reports its progress on standard output, which belongs to our callers.
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _coco(labels, [[(box, 1.0) for box in item.question.truth] for item in items])
        found = _coco(labels, [list(zip(item.answer.boxes, item.scores, strict=True)) for item in items])
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [max(MIN_DETECTIONS, *(len(item.answer.boxes) for item in items))]
        evaluation.evaluate()
        evaluation.accumulate()
    # [IoU thresholds, recall points, classes]; -1 where a class has no true box.
    precision_TRK = evaluation.eval["precision"][:, :, :, 0, 0]
    counts = np.zeros((len(labels), 3), dtype=int)
    for pair in evaluation.evalImgs:
        if pair is not None:
            hits = int((pair["dtMatches"][0] > 0).sum())
            counts[pair["category_id"] - 1] += (hits, len(pair["dtIds"]), len(pair["gtIds"]))
    per_class = {
        label: _class_scores(precision_TRK[:, :, index], *counts[index].tolist()) for index, label in enumerate(labels)
    }
    return DetectionScores(len(items), _class_scores(precision_TRK, *counts.sum(axis=0).tolist()), per_class)


def _coco(labels: Sequence[str], pictures: Sequence[Sequence[tuple[LabelledBox, float]]]) -> COCO:
    """Boxes as COCO holds them. Ids start at 1: its matching takes 0 for none."""
    number_of = {label: number for number, label in enumerate(labels, start=1)}
    annotations: list[dict[str, Any]] = []
    for picture, boxes in enumerate(pictures, start=1):
        for item, score in boxes:
            bbox = xywh(item)
            ids = {"id": len(annotations) + 1, "image_id": picture, "category_id": number_of[class_of(item)]}
            annotations.append({**ids, "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0, "score": score})
    coco = COCO()
    coco.dataset = {
        "images": [{"id": picture} for picture in range(1, len(pictures) + 1)],
        "annotations": annotations,
        "categories": [{"id": number, "name": label} for label, number in number_of.items()],
    }
    coco.createIndex()
    return coco


def _class_scores(precision: np.ndarray, hits: int, predicted: int, true: int) -> ClassScores:
    valid, at_half = precision[precision > -1], precision[0][precision[0] > -1]
    share_right, share_found = hits / max(predicted, 1), hits / max(true, 1)
    return ClassScores(
        true_boxes=true,
        predicted_boxes=predicted,
        ap50=float(at_half.mean()) if at_half.size else None,
        ap50_95=float(valid.mean()) if valid.size else None,
        precision=share_right,
        recall=share_found,
        f1=2 * hits / max(predicted + true, 1),
    )
