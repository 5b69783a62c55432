"""The answers of a model to the questions of a file of records, as `score-boxes` reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.records.annotations import read_samples
from internvl_chat.data.records.record_questions import entries_in
from internvl_chat.inference.requests import Ask


def records_to_answer(records: Path, root: Path | None = None, limit: int | None = None) -> list[Sample]:
    """The records of a JSONL, a JSON list, or the datasets of a meta JSON.

    Args:
        root: the folder that the paths of a file of records are relative to; None is the file's own.
        limit: so many records, the first ones.
    Raises:
        UserError: the file cannot be used, an id comes twice, or nothing is asked.
    """
    entries = entries_in(records)
    if root is not None:
        entries = [replace(entry, root=root) for entry in entries]
    samples = [sample for entry in entries for sample in read_samples(replace(entry, repeat_time=1.0))][:limit]
    sources: dict[str, str] = {}
    for sample in samples:
        if sample.id in sources:
            raise UserError(f"{sample.source}: id {sample.id!r} was already used in {sources[sample.id]}")
        sources[sample.id] = sample.source
    if not any(questions_of(sample) for sample in samples):
        raise UserError(f"{records}: no record has a gpt turn or ends with a human one: nothing is asked")
    return samples


def questions_of(sample: Sample) -> list[Ask]:
    """One ask a gpt turn, with what the record says before it, and one where it ends with a question."""
    ends = [number for number, turn in enumerate(sample.turns) if turn.speaker == "gpt"]
    if sample.turns[-1].speaker == "human":
        ends.append(len(sample.turns))
    return [
        Ask(f"{sample.id} ({count})", (replace(sample, turns=sample.turns[:end]),))
        for count, end in enumerate(ends, start=1)
    ]


def answered_part(sample: Sample) -> Sample:
    """A record up to its last gpt turn; a question after it has no known answer."""
    last = max((number for number, turn in enumerate(sample.turns) if turn.speaker == "gpt"), default=-1)
    return replace(sample, turns=sample.turns[: last + 1])


def answer_records(samples: Sequence[Sample], answers: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """One line an answered record: `answer`, or `answers` where it has several gpt turns.

    Args:
        answers: by ask id. An ask that could not be answered leaves its record out, or is empty between others.
    """
    for sample in samples:
        texts = [answers.get(ask.id) for ask in questions_of(sample)]
        if len(texts) == 1 and texts[0] is not None:
            yield {"id": sample.id, "answer": texts[0]}
        elif any(text is not None for text in texts):
            yield {"id": sample.id, "answers": [text or "" for text in texts]}
