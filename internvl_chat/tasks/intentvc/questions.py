"""Captions of objects in videos: what a test set asks, in the challenge's folders or in records of any layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.prompts.wordings import wording_named
from internvl_chat.data.records.annotations import DatasetEntry, read_captions
from internvl_chat.data.records.intentvc import REFERENCES_NAME
from internvl_chat.data.records.record_questions import answers_known, entries_in, question_sample, read_questions
from internvl_chat.scoring.captions.caption_scores import CHALLENGE_METRICS, ScoreTable, score_captions
from internvl_chat.scoring.significance import confidence_intervals
from internvl_chat.tasks.benchmark import Answers, Benchmark, Published, ScoreRow, Scores
from internvl_chat.tasks.intentvc.ranking import final_scores
from internvl_chat.tasks.intentvc.submission import SPLITS, splits_in

# The challenge's folders may hold the test set's captions, or one's own.
_REFERENCES = (REFERENCES_NAME, "captions.json")
# Source: benchmarks/leaderboard_scores.py.
_PEOPLE = Published(
    "people",
    {"CIDEr": 2.31529, "METEOR": 0.34376, "BLEU-4": 0.43489, "ROUGE-L": 0.61377},
    "one caption of each of the challenge's 980 training videos against the four others, measured here",
)


@dataclass(frozen=True)
class CaptionSet:
    """Questions about objects in videos.

    Args:
        samples: the questions, each with its object's track.
        references: captions by the questions' ids; what has none is asked and not scored.
        parts: ids of what is scored apart; the mean over the parts is what ranks.
    """

    samples: tuple[Sample, ...]
    references: Mapping[str, Sequence[str]]
    parts: Mapping[str, Sequence[str]]


def read(source: Path) -> Benchmark:
    """The captions that a test set asks for.

    Args:
        source: a folder in the challenge's layout, asked in the challenge's words; or a meta JSON or a file of records,
            asked in their own words, whose answers are the references.
    Raises:
        UserError: it is neither.
    """
    asked = read_caption_set(source)

    def score(answers: Answers) -> Scores:
        first = {i: texts[0] for i, texts in answers.items() if i in asked.references}
        said = {part: {i: first[i] for i in ids if i in first} for part, ids in asked.parts.items()}
        tables = {part: score_captions(texts, asked.references) for part, texts in said.items() if texts}
        if not tables:
            return Scores({}, f"no answer has a reference: nothing is scored of {len(asked.samples)} questions\n")
        by_part = {part: table.corpus() for part, table in tables.items()}
        values = final_scores(by_part)
        text = "".join(f"{name:16}{value:.4f}\n" for name, value in values.items())
        return Scores(values, text, {"parts": by_part, "scored": len(first)}, _rows(values, tables))

    # The challenge's own captions say what people reach, whoever's videos are asked.
    return Benchmark(asked.samples, score, published=[_PEOPLE] if set(asked.parts) & set(SPLITS) else [])


def _rows(values: Mapping[str, float], tables: Mapping[str, ScoreTable]) -> list[ScoreRow]:
    """The final scores in the challenge's order, then those of each part where there are several."""
    names = sorted(values, key=lambda name: name not in CHALLENGE_METRICS)
    intervals = {part: confidence_intervals(table) for part, table in tables.items()}
    if len(tables) == 1:
        ((part, table),) = tables.items()
        return [ScoreRow(name, values[name], len(table.ids), intervals[part][name]) for name in names]
    scored = sum(len(table.ids) for table in tables.values())
    rows = [ScoreRow(f"{name}, mean of {' and '.join(tables)}", values[name], scored) for name in names]
    return rows + [
        ScoreRow(f"{name}, {part}", table.corpus()[name], len(table.ids), intervals[part][name], is_whole=False)
        for part, table in tables.items()
        for name in names
    ]


def read_caption_set(source: Path) -> CaptionSet:
    """What `read` asks, for who asks the same clips otherwise.

    Raises:
        UserError: it is neither a folder of the challenge's nor records.
    """
    if source.is_dir():
        return _of_folder(source)
    if not source.is_file():
        raise UserError(f"{source}: not found: expected a folder in IntentVC's layout, a meta JSON, or records")
    return _of_records(source)


def _of_folder(root: Path) -> CaptionSet:
    found = next((root / name for name in _REFERENCES if (root / name).is_file()), None)
    references = read_captions(found) if found else {}
    parts: Mapping[str, Sequence[str]] = splits_in(root)
    if not parts:
        if not references:
            raise UserError(f"{root}: holds no test videos, and none of {', '.join(_REFERENCES)} to say what is asked")
        parts = {"all": list(references)}
    entry = DatasetEntry(root.name, root, root)
    question = wording_named("coordinates").asks
    samples = (question_sample(entry, video_id, question) for ids in parts.values() for video_id in ids)
    return CaptionSet(tuple(samples), references, parts)


def _of_records(path: Path) -> CaptionSet:
    questions = read_questions(entries_in(path))
    return CaptionSet(
        tuple(question.sample for question in questions.values()), answers_known(questions), {"all": list(questions)}
    )
