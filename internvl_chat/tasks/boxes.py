"""Boxes in answers: Precision@1, average precision, precision, recall and F1 on a set of grounding records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from internvl_chat.contracts import UserError
from internvl_chat.inference.answers import answer_records, answered_part, questions_of, records_to_answer
from internvl_chat.scoring.box_records import pair_answers, records_by_id
from internvl_chat.scoring.box_scores import score_boxes
from internvl_chat.scoring.significance import share_interval
from internvl_chat.tasks.benchmark import Answers, Benchmark, ScoreRow, Scores

# What `flowchart` holds out.
_HELD_OUT = "val.jsonl"


def read(source: Path) -> Benchmark:
    """The questions of a file of records whose gpt turns hold boxes; paths in it are relative to its folder.

    Args:
        source: JSONL or a JSON list, or a folder with `val.jsonl`.
    Raises:
        UserError: it cannot be read, or nothing is asked in it.
    """
    path = source / _HELD_OUT if source.is_dir() else source
    if not path.is_file():
        raise UserError(f"{path}: not found: expected a file of records, or a folder with {_HELD_OUT}")
    records = [answered_part(record) for record in records_to_answer(path)]
    records = [record for record in records if record.turns]
    if not records:
        raise UserError(f"{path}: no record has a gpt turn with boxes to score against")
    asked = [replace(ask.samples[0], id=ask.id) for record in records for ask in questions_of(record)]

    def score(answers: Answers) -> Scores:
        first = {ask_id: texts[0] for ask_id, texts in answers.items()}
        given = {line["id"]: ("the answers", line) for line in answer_records(records, first)}
        report = score_boxes(pair_answers(records_by_id(path), given, path))
        values: dict[str, float | int | None] = {}
        rows: list[ScoreRow] = []
        if report.detection is not None:
            overall = report.detection.overall
            values |= {"AP50": overall.ap50, "AP": overall.ap50_95, "F1": overall.f1}
            measured = {name: value for name, value in values.items() if value is not None}
            unread = report.unread_detection
            rows += [ScoreRow(name, value, report.detection.images, None, unread) for name, value in measured.items()]
        if report.referring is not None:
            referring = report.referring
            values["P@1"] = referring.precision_at_1
            interval = share_interval(referring.correct, referring.answers)
            unread = report.without_box - report.unread_detection
            rows.append(ScoreRow("P@1", referring.precision_at_1, referring.answers, interval, unread))
        return Scores(values, report.as_text(), report.as_dict(), rows)

    return Benchmark(asked, score, keep_tags=True)
