"""What a converter is told beside its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from internvl_chat.contracts import UserError
from internvl_chat.data.converters.forms.tracking import Question
from internvl_chat.data.prompts.object_questions import QUESTION_FORMS

BoxUnit = Literal["pixels", "unit", "percent", "thousandths"]


@dataclass(frozen=True)
class Conversion:
    """How a source is read.

    Args:
        root: the folder that the records' paths are relative to; no file may leave it.
        question: what is asked of each tracked object.
        num_frames: most frames of a video that becomes pictures; None is all.
        unit, first_frame, interpolate: of tables that do not say: what their boxes are counted in, the number of their
            first frame, and whether the frames between two boxes are filled in.
        question_seed: by which each object's question is drawn from `question_forms`; None asks the fixed one.
        faults: gets what is wrong with single items, which are then left out.
    """

    root: Path
    question: Question
    num_frames: int | None = None
    unit: BoxUnit = "pixels"
    first_frame: int = 0
    interpolate: bool = False
    question_forms: Sequence[str] = QUESTION_FORMS
    question_seed: int | None = None
    faults: list[UserError] = field(default_factory=list)
