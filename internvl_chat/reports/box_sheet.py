"""The contact sheet of predicted boxes: each picture with what is true, and what was predicted over it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from internvl_chat.contracts import UserError
from internvl_chat.data.media.boxed_pictures import BoxedPicture, boxed_sheet
from internvl_chat.data.media.pictures import read_picture
from internvl_chat.scoring.box_records import AnsweredQuestion, BoxQuestion


def picture_of(question: BoxQuestion, root: Path) -> Image.Image:
    """The picture that a question is about.

    Raises:
        UserError: the record names no single image, or it cannot be read.
    """
    if question.image is None:
        raise UserError(f"{question.source}: expected one path in 'image', to draw boxes on")
    try:
        return Image.fromarray(read_picture(root / question.image))
    except UserError as error:
        raise UserError(f"{question.source}: {error}") from error


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
        question, image = item.question, picture_of(item.question, root)
        counts = f"{len(question.truth)} true (blue), {len(item.answer.boxes)} predicted (orange)"
        caption = ", ".join([counts, *dict.fromkeys(fault.value for fault in item.answer.faults)])
        pictures.append(BoxedPicture(image, question.truth, item.answer.boxes, caption))
    return boxed_sheet(pictures)
