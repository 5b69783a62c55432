"""Boxes read out of what a model wrote, and everything that is wrong with the way it wrote them.

Well-formed is `<ref>label</ref><box>[[x1, y1, x2, y2], ...]</box>`, any number of times, with any text around it. What
is not is counted by kind; a box that can still be read is used all the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from internvl_chat.constants import BOX_END, BOX_SCALE, BOX_START, REF_END, REF_START
from internvl_chat.grounding import LabelledBox


class AnswerFault(Enum):
    """What can be wrong with an answer that should hold boxes."""

    EMPTY_ANSWER = "empty_answer"
    """Nothing but white space."""
    NO_BOX = "no_box"
    """Text without anything that looks like a box."""
    UNTAGGED_BOX = "untagged_box"
    """A list of numbers outside `<box>`, as decoding without special tokens leaves it."""
    MISSING_LABEL = "missing_label"
    """A `<box>` without a `<ref>` of its own."""
    EMPTY_LABEL = "empty_label"
    """`<ref></ref>`."""
    MISSING_BOX = "missing_box"
    """A `<ref>` without a `<box>` after it."""
    UNCLOSED_REF = "unclosed_ref"
    UNOPENED_REF = "unopened_ref"
    UNCLOSED_BOX = "unclosed_box"
    """`<box>` without its end: the usual mark of an answer that was cut off."""
    UNOPENED_BOX = "unopened_box"
    EMPTY_BOX = "empty_box"
    """`<box></box>` or `<box>[[]]</box>`."""
    UNBALANCED_BRACKETS = "unbalanced_brackets"
    WRONG_NESTING = "wrong_nesting"
    """Not a list of lists: `[1, 2, 3, 4]`."""
    STRAY_TEXT = "stray_text"
    """Something between the lists that is no list."""
    WRONG_COUNT = "wrong_count"
    """A list of more or fewer than four."""
    NOT_A_NUMBER = "not_a_number"
    OUT_OF_RANGE = "out_of_range"
    """Below 0 or above 1000; the box is cut to the picture."""
    NO_AREA = "no_area"
    """The second corner is not to the right of and below the first; the box is not used."""
    MISSING_PREDICTION = "missing_prediction"
    """The file of predictions has no answer to this question."""


@dataclass(frozen=True)
class BoxAnswer:
    """The boxes that could be read, in the order written, and the faults found on the way."""

    boxes: tuple[LabelledBox, ...]
    faults: tuple[AnswerFault, ...]


_TAG = re.compile(r"(</?(?:ref|box)>)")
_INNER_LIST = re.compile(r"\[([^\[\]]*)\]")
# Few brackets may open it: a long row of them would be tried from each of its places on.
_UNTAGGED_LIST = re.compile(r"\[[\[\s]{0,8}-?[\d.][^\]]*\][\s,\]]*(?:\[[^\[\]]*\][\s,\]]*)*")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)")


def parse_boxes(answer: str) -> BoxAnswer:
    """Read every box of an answer, well-formed or not; nothing raises.

    Coordinates are thousandths; four numbers that are all between 0 and 1 are shares of the side instead, as some
    models write them.
    """
    if not answer.strip():
        return BoxAnswer((), (AnswerFault.EMPTY_ANSWER,))
    reader = _Reader()
    for piece in _TAG.split(answer):
        if _TAG.fullmatch(piece):
            reader.tag(piece)
        else:
            reader.text(piece)
    reader.end()
    if not reader.boxes and not reader.faults:
        reader.faults.append(AnswerFault.NO_BOX)
    return BoxAnswer(tuple(reader.boxes), tuple(reader.faults))


class _Reader:
    """Goes through an answer tag by tag; `open` is the tag whose content is being read, `label` awaits its boxes."""

    def __init__(self) -> None:
        self.boxes: list[LabelledBox] = []
        self.faults: list[AnswerFault] = []
        self.open = ""
        self.content = ""
        self.label: str | None = None

    def text(self, text: str) -> None:
        if self.open:
            self.content += text
            return
        before = 0
        for found in _UNTAGGED_LIST.finditer(text):
            self.faults.append(AnswerFault.UNTAGGED_BOX)
            line = text[before : found.start()].rpartition("\n")[2].strip(" :,-")
            # What stands before a list inside JSON is the name of a field.
            line = "" if '"' in line or "{" in line else line
            self._read_lists(found.group(), self.label if self.label is not None else line)
            self.label, before = None, found.end()

    def tag(self, tag: str) -> None:
        if tag in (REF_START, BOX_START):
            self._close(complete=False)
            if tag == REF_START:
                self._drop_label()
            elif self.label is None:
                self.faults.append(AnswerFault.MISSING_LABEL)
            self.open, self.content = tag, ""
        elif {REF_END: REF_START, BOX_END: BOX_START}[tag] == self.open:
            self._close(complete=True)
        else:
            self._close(complete=False)
            self.faults.append(AnswerFault.UNOPENED_REF if tag == REF_END else AnswerFault.UNOPENED_BOX)

    def end(self) -> None:
        self._close(complete=False)
        self._drop_label()

    def _close(self, complete: bool) -> None:
        if self.open == REF_START:
            if not complete:
                self.faults.append(AnswerFault.UNCLOSED_REF)
            self.label = " ".join(self.content.split())
            if not self.label:
                self.faults.append(AnswerFault.EMPTY_LABEL)
        elif self.open == BOX_START:
            if not complete:
                self.faults.append(AnswerFault.UNCLOSED_BOX)
            self._read_lists(self.content, self.label or "")
            self.label = None
        self.open = ""

    def _drop_label(self) -> None:
        if self.label is not None:
            self.faults.append(AnswerFault.MISSING_BOX)
        self.label = None

    def _read_lists(self, text: str, label: str) -> None:
        if not text.strip("[], \n\t"):
            self.faults.append(AnswerFault.EMPTY_BOX)
            return
        lists, rest = _INNER_LIST.findall(text), _INNER_LIST.sub("", text)
        if text.count("[") != text.count("]"):
            self.faults.append(AnswerFault.UNBALANCED_BRACKETS)
            lists = lists or [rest.strip("[] ,\n\t")]
        elif "".join(rest.split()).replace(",", "") != "[]":
            stray = rest.strip("[], \n\t")
            self.faults.append(AnswerFault.STRAY_TEXT if lists and stray else AnswerFault.WRONG_NESTING)
            lists = lists or [stray]
        for content in lists:
            box = self._read_box(content)
            if box is not None:
                self.boxes.append(LabelledBox(label, box))

    def _read_box(self, content: str) -> tuple[float, float, float, float] | None:
        words = [word.strip() for word in content.split(",")]
        if len(words) != 4:
            self.faults.append(AnswerFault.WRONG_COUNT)
            return None
        if not all(_NUMBER.fullmatch(word) for word in words):
            self.faults.append(AnswerFault.NOT_A_NUMBER)
            return None
        values = [float(word) for word in words]
        if all(0 <= value <= 1 for value in values):
            values = [value * BOX_SCALE for value in values]
        if not all(0 <= value <= BOX_SCALE for value in values):
            self.faults.append(AnswerFault.OUT_OF_RANGE)
        x1, y1, x2, y2 = (min(max(value, 0.0), float(BOX_SCALE)) for value in values)
        if x2 <= x1 or y2 <= y1:
            self.faults.append(AnswerFault.NO_AREA)
            return None
        return x1, y1, x2, y2
