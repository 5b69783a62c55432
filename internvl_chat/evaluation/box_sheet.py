"""The contact sheet of predicted boxes: each picture with what is true, and what was predicted over it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from internvl_chat.contracts import UserError
from internvl_chat.data.grounding_picture import BoxedPicture, boxed_sheet
from internvl_chat.evaluation.grounding_records import AnsweredQuestion


def prediction_sheet(answers: Sequence[AnsweredQuestion], root: Path) -> Image.Image:
    """The picture of each answer with its true boxes, and the predicted ones over them.

    Args:
        answers: at least one.
        root: what the records' image paths are relative to.
    Raises:
        UserError: a record has no image, or it cannot be read.
    """
    pictures = []
    for item in answers:
        question = item.question
        if question.image is None:
            raise UserError(f"{question.source}: has no 'image', expected one path to draw its boxes on")
        try:
            with Image.open(root / question.image) as opened:
                image = opened.convert("RGB")
        except OSError as error:
            raise UserError(f"{question.source}: {root / question.image} cannot be read ({error})") from error
        counts = f"{len(question.truth)} true (blue), {len(item.answer.boxes)} predicted (orange)"
        caption = ", ".join([counts, *dict.fromkeys(fault.value for fault in item.answer.faults)])
        pictures.append(BoxedPicture(image, question.truth, item.answer.boxes, caption))
    return boxed_sheet(pictures)
