"""Answers with boxes and the truth they are held against, paired from two files: JSONL, or a list in a .json.

References are InternVL's grounding records (`conversations` whose gpt turns hold boxes) or RefCOCO's (`sent`, `bbox`
in pixels, `width`, `height`). Predictions are `{"id": ..., "answer": text}`, `{"id": ..., "answers": [text, ...]}`
with one text a gpt turn, or records with `conversations`. A record without an id goes by its line number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_chat.constants import BOX_START, REF_START
from internvl_chat.contracts import UserError
from internvl_chat.files import parse_json, read_text, split_records
from internvl_chat.grounding import LabelledBox, ReferredRegion, nameless_id
from internvl_chat.scoring.box_answers import AnswerFault, BoxAnswer, parse_boxes

_NOT_ANSWERED: tuple[BoxAnswer, tuple[float, ...]] = (BoxAnswer((), (AnswerFault.MISSING_PREDICTION,)), ())


@dataclass(frozen=True)
class BoxQuestion:
    """One question and its true boxes.

    `refers` says that it names one region and asks where it is; otherwise it asks for all objects. `image` is the
    record's own path, None where it has none; `source` is file and line.
    """

    source: str
    image: str | None
    refers: bool
    truth: tuple[LabelledBox, ...]


@dataclass(frozen=True)
class AnsweredQuestion:
    """A question with what was answered; `scores` has the confidence of each box that could be read."""

    question: BoxQuestion
    answer: BoxAnswer
    scores: tuple[float, ...]


@dataclass(frozen=True)
class AnsweredSet:
    """The questions of a reference file that have true boxes, and those that were answered with boxes all the same.

    The other two say how much of the files was not used.
    """

    answered: tuple[AnsweredQuestion, ...]
    turns_without_boxes: int
    predictions_without_reference: int


# By id: where a record stands, file and line, and the record.
Records = Mapping[str, tuple[str, Mapping[str, Any]]]


def read_answered(references: Path, predictions: Path) -> AnsweredSet:
    """Pair two files by id; a question without a prediction stays, with nothing answered.

    Raises:
        UserError: a line is no such record, an id comes twice, a reference is malformed, or no id is in both files.
    """
    truth, given = records_by_id(references), records_by_id(predictions)
    if not truth.keys() & given.keys():
        raise UserError(f"{predictions}: has no id of {references}, expected the same ids: are both of the same set?")
    return pair_answers(truth, given, references)


def pair_answers(truth: Records, given: Records, references: Path) -> AnsweredSet:
    """Pair references with predictions by id, see `read_answered`; `references` is the former's file, for messages.

    Raises:
        UserError: a reference or a prediction is malformed, or no reference has a box.
    """
    answered: list[AnsweredQuestion] = []
    turns_without_boxes = 0
    for record_id, (source, record) in truth.items():
        questions = _questions(source, record)
        answers = _answers(*given[record_id]) if record_id in given else []
        # `answer` answers a question at a record's end too, to which nothing is known.
        if len(answers) > len(questions) + _ends_with_question(record):
            raise UserError(
                f"{given[record_id][0]}: has {len(answers)} answers for the {len(questions)} gpt turns of {source}"
            )
        for number, question in enumerate(questions):
            answer, scores = answers[number] if number < len(answers) else _NOT_ANSWERED
            if question.truth or _finds_objects_that_are_not_there(question, answer):
                answered.append(AnsweredQuestion(question, answer, scores))
            else:
                turns_without_boxes += 1
    if not any(item.question.truth for item in answered):
        raise UserError(f"{references}: no gpt turn holds a box, expected '{BOX_START}[[x1, y1, x2, y2]]</box>'")
    return AnsweredSet(tuple(answered), turns_without_boxes, len(given.keys() - truth.keys()))


def _finds_objects_that_are_not_there(question: BoxQuestion, answer: BoxAnswer) -> bool:
    """Boxes where the truth has none are false positives; numbers listed in a text about something else are no box."""
    return not question.refers and bool(answer.boxes) and AnswerFault.UNTAGGED_BOX not in answer.faults


def _ends_with_question(record: Mapping[str, Any]) -> bool:
    turns = record.get("conversations")
    return isinstance(turns, list) and bool(turns) and isinstance(turns[-1], dict) and turns[-1].get("from") == "human"


def records_by_id(path: Path) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """The records of a file by id, each with where it stands.

    Raises:
        UserError: a line is no record, or an id comes twice.
    """
    records: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for raw in split_records(read_text(path), path):
        source = f"{path}:{raw.line}"
        record = parse_json(raw.text, source)
        if not isinstance(record, dict):
            raise UserError(f"{source}: expected one JSON object a line, got {type(record).__name__}")
        record_id = str(record["id"]) if "id" in record else nameless_id(raw.line)
        if record_id in records:
            raise UserError(
                f"{source}: id {record_id!r} was already used in {records[record_id][0]}; expected one line an id"
            )
        records[record_id] = (source, record)
    return records


def _exchanges(source: str, record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The question (all that was said since the last answer) and the answer of every gpt turn."""
    exchanges, question = [], ""
    turns = record.get("conversations")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise UserError(f"{source}: expected 'conversations', a list of turns with 'from' and 'value'")
    try:
        for turn in turns:
            # The data guide's own example calls it "text" once.
            text = str(turn["value"] if "value" in turn else turn["text"])
            if turn["from"] == "gpt":
                exchanges.append((question, text))
                question = ""
            else:
                question += text
    except KeyError as error:
        raise UserError(f"{source}: expected turns with 'from' and 'value', missing {error}") from error
    return exchanges


def _questions(source: str, record: Mapping[str, Any]) -> list[BoxQuestion]:
    image = record.get("image") if isinstance(record.get("image"), str) else None
    if "bbox" in record:
        return [BoxQuestion(source, image, True, (ReferredRegion.of_record(record, source).in_thousandths(),))]
    questions = []
    for question, text in _exchanges(source, record):
        parsed = parse_boxes(text) if BOX_START in text else BoxAnswer((), ())
        if parsed.faults:
            kinds = ", ".join(fault.value for fault in parsed.faults)
            raise UserError(f"{source}: the reference {text[:80]!r} is malformed ({kinds}); expected well-formed truth")
        questions.append(BoxQuestion(source, image, REF_START in question, parsed.boxes))
    return questions


def _answers(source: str, record: Mapping[str, Any]) -> list[tuple[BoxAnswer, tuple[float, ...]]]:
    scores = record.get("scores")
    if "answer" in record:
        texts, scores = [record["answer"]], None if scores is None else [scores]
    elif "answers" in record:
        texts = record["answers"]
    else:
        texts = [text for _, text in _exchanges(source, record)]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{source}: expected texts in 'answer' or 'answers', got {texts!r:.80}")
    parsed = [parse_boxes(text) for text in texts]
    if scores is None:
        scores = [[1.0] * len(answer.boxes) for answer in parsed]
    try:
        lengths = [len(row) for row in scores]
        rows = [tuple(float(value) for value in row) for row in scores]
    except (TypeError, ValueError) as error:
        raise UserError(f"{source}: expected one number a box in 'scores', got {record['scores']!r:.80}") from error
    if not all(math.isfinite(value) for row in rows for value in row):
        raise UserError(f"{source}: expected finite numbers in 'scores', got {record['scores']!r:.80}")
    if lengths != [len(answer.boxes) for answer in parsed]:
        raise UserError(
            f"{source}: 'scores' has {lengths} numbers: expected one a box that can be read, "
            f"{[len(answer.boxes) for answer in parsed]}"
        )
    return list(zip(parsed, rows, strict=True))
