"""The published wordings of a question, by the set of controls that each one speaks of."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from internvl_chat.choices import PROMPT_FORMS
from internvl_chat.contracts import Turn


@dataclass(frozen=True)
class Wording:
    """A question as it was published.

    Args:
        question: about an object of this `{name}`, without the video placeholder and without the coordinate list.
        ending: the end by which it is told, whatever the object is called; None where only the whole will do.
        before_list, after_list: what stands around the list of coordinates, where it has one.
    """

    question: str
    ending: str | None = None
    before_list: str = " The coordinates in each frame are:\n"
    after_list: str = "."

    def asks(self, name: str) -> str:
        """The question about an object of this name."""
        return self.question.format(name=name)

    def is_whole(self, text: str) -> bool:
        """Whether a text is this question, about whatever object."""
        return re.fullmatch(re.escape(self.question).replace(re.escape("{name}"), ".+"), text.strip()) is not None


# IntentVCNet's, arXiv 2507.18531, byte for byte.
WORDINGS = {
    PROMPT_FORMS["coordinates"]: Wording(
        "Describe this video in one sentence, and focus on {name} located in the coordinate list.",
        ending="located in the coordinate list.",
    ),
    PROMPT_FORMS["red_box"]: Wording(
        "Describe this video in one sentence, and focus on the {name} in the red coordinate box.",
        ending="in the red coordinate box.",
    ),
    PROMPT_FORMS["red_box_coordinates"]: Wording(
        "Describe this video in one sentence, and focus on the {name} in the red coordinate box, "
        "whose coordinates at each frame are:",
        ending="in the red coordinate box, whose coordinates at each frame are:",
        before_list="\n",
    ),
    PROMPT_FORMS["text_only"]: Wording("Give this video a description in one sentence."),
}
# The controls that a wording can speak of.
_WORDED = frozenset().union(*WORDINGS)
_OWN_WORDS = frozenset[str]()


def wording_named(form: str) -> Wording:
    """The wording of a word of `--prompt_form`."""
    return WORDINGS[PROMPT_FORMS[form]]


def question_about(name: str, controls: frozenset[str]) -> str:
    """The published question about an object, with the controls that it speaks of."""
    return WORDINGS[controls].asks(name)


def recognised(text: str) -> frozenset[str]:
    """The controls that a question's wording speaks of; a question of the user's own speaks of none."""
    endings = ((controls, wording.ending) for controls, wording in WORDINGS.items() if wording.ending)
    return next((controls for controls, ending in endings if text.strip().endswith(ending)), _OWN_WORDS)


def question_turn(text: str) -> Turn:
    """A question as a turn that carries what its wording speaks of."""
    return Turn("human", text, recognised(text))


def reworded(question: Turn, name: str, controls: frozenset[str]) -> Turn:
    """A published question in the wording that goes with these controls; any other is left as it is.

    Controls that no wording speaks of change nothing.
    """
    worded = controls & _WORDED
    if worded == question.controls or worded not in WORDINGS:
        return question
    head, line_break, asked = question.text.rpartition("\n")
    if not WORDINGS[question.controls].is_whole(asked):
        return question
    return replace(question, text=head + line_break + question_about(name, worded), controls=worded)


def list_frame(question: Turn) -> tuple[str, str]:
    """What stands before and after the list of coordinates of this question."""
    wording = WORDINGS[question.controls]
    return wording.before_list, wording.after_list
