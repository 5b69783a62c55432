"""What an Artemis is asked about an object: one form in prediction, drawn ones in training, and the notes of its track.

Source: Artemis, NeurIPS 2024. Its published form and its three notes are as they were; the other 23 forms, which stand
for as many of the original's, are worded here.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from internvl_chat.constants import REGION_PLACEHOLDER
from internvl_chat.contracts import UserError
from internvl_chat.files import read_text

# What is said before the slots of a track; a question that ends with one of them has its slots behind it.
TRACK_NOTES = (
    "This is the region's video tracking list:",
    "There is the region's video tracking list:",
    "You are provided the region's video tracking list:",
)
_OBJECTS = (
    f"the {REGION_PLACEHOLDER}",
    f"the object {REGION_PLACEHOLDER}",
    f"the thing at {REGION_PLACEHOLDER}",
    f"the one marked {REGION_PLACEHOLDER}",
)
_FORMS = (
    "What is {} doing in this video?",
    "What does {} do in the course of the video?",
    "Say what happens to {} while the video runs.",
    "Which action is {} busy with?",
    "How does {} move, and what for?",
    "Tell me in a sentence what becomes of {}.",
)
QUESTION_FORMS = tuple(form.format(thing) for thing in _OBJECTS for form in _FORMS)
# What is asked where nothing is to be left to chance.
FIXED_QUESTION = f"{QUESTION_FORMS[0]} {TRACK_NOTES[0]}"


def drawn_question(key: str, seed: int, forms: Sequence[str] = QUESTION_FORMS) -> str:
    """A form and a note for the record of this key: the same ones in every run with this seed."""
    # Seeded with a text, Python's generator gives the same numbers on every machine and in every version.
    draw = random.Random(f"{seed} {key}")
    return f"{draw.choice(forms)} {draw.choice(TRACK_NOTES)}"


def read_forms(path: Path) -> tuple[str, ...]:
    """Question forms of the user's own, a line each.

    Raises:
        UserError: there are none, or one does not mention its object as `<bbox>` once.
    """
    forms = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    if not forms:
        raise UserError(f"{path}: holds no questions: expected one a line, with {REGION_PLACEHOLDER} for the object")
    for form in forms:
        if form.count(REGION_PLACEHOLDER) != 1:
            raise UserError(f"{path}: {form!r:.80}: expected {REGION_PLACEHOLDER} once, where the object is mentioned")
    return forms
