"""What records ask: every question once, under an id of its own, with the answers that are known to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from internvl_chat.constants import VIDEO_PLACEHOLDER
from internvl_chat.contracts import Sample, TrackFile, UserError
from internvl_chat.data.prompts.wordings import question_turn
from internvl_chat.data.records.annotations import DatasetEntry, load_meta, read_captions, read_samples
from internvl_chat.data.records.intentvc import category_of, object_name_of, video_path_of
from internvl_chat.files import read_json


@dataclass(frozen=True)
class RecordQuestion:
    """A conversation that ends with a question, and the answers that records give to it; none where they ask alone."""

    sample: Sample
    answers: tuple[str, ...] = ()


def group_by_prompt(samples: Sequence[Sample], captions_per_pass: int | None = None) -> list[tuple[Sample, ...]]:
    """Samples that differ only in their last answer, together: they can share one pass over their prompt.

    Samples that are repeated make repeated groups.

    Args:
        captions_per_pass: most answers of a group; None sets no limit, 1 leaves every sample alone.
    Returns:
        Groups in the order of their first sample.
    """
    # A sample that comes again, for its dataset is to be repeated, belongs to a pass of its own.
    groups: dict[tuple[Sample, int], list[Sample]] = {}
    times: Counter[Sample] = Counter()
    for sample in samples:
        prompt = replace(sample, id="", source="", turns=sample.turns[:-1])
        groups.setdefault((prompt, times[sample]), []).append(sample)
        times[sample] += 1
    chunks = []
    for group in groups.values():
        size = captions_per_pass or len(group)
        chunks += [tuple(group[start : start + size]) for start in range(0, len(group), size)]
    return chunks


def question_sample(entry: DatasetEntry, video_id: str, question_of: Callable[[str], str]) -> Sample:
    """What is asked about a video in the challenge's layout: the question alone, boxes from beside the video.

    Args:
        question_of: gives the question about an object of this name, without the video placeholder.
    """
    name = object_name_of(category_of(video_id), entry.object_names)
    video_path = video_path_of(entry.root, video_id)
    question = question_turn(f"{VIDEO_PLACEHOLDER}\n{question_of(name)}")
    track = TrackFile(name, entry.boxes_path(video_path))
    return Sample(video_id, (question,), str(video_path), video_path=video_path, tracks=(track,))


def is_meta(content: Any) -> bool:
    """Whether what a JSON file holds is a meta JSON: datasets by name, each with its annotation."""
    entries = content.values() if isinstance(content, dict) else ()
    return bool(entries) and all(isinstance(fields, dict) and "annotation" in fields for fields in entries)


def holds_records(path: Path) -> bool:
    """Whether a file is a meta JSON or a file of records, and not JSON of something else."""
    if path.suffix != ".json":
        return True
    content = read_json(path)
    return is_meta(content) if isinstance(content, dict) else bool(content)


def entries_in(path: Path) -> list[DatasetEntry]:
    """The datasets of a meta JSON, or the one of a file of records, whose paths are then relative to its folder.

    Raises:
        UserError: it is neither, or names what is not there.
    """
    if path.suffix == ".json" and isinstance(read_json(path), dict):
        return load_meta(path)
    return [DatasetEntry(path.stem, path.parent, path)]


def read_questions(entries: Iterable[DatasetEntry], wanted: Collection[str] | None = None) -> dict[str, RecordQuestion]:
    """Each question of these datasets once, by its id, whatever the number of answers and repeats.

    A question goes by the id of its first record. Records as IntentVC's annotations call them, `dog-1-0`, `dog-1-1` for
    the captions of the video `dog-1`, go by the video's id.

    Args:
        wanted: the ids that are asked for; None is all.
    Raises:
        UserError: a record cannot be used, or two questions have one id.
    """
    groups = group_by_prompt([s for entry in entries for s in read_samples(replace(entry, repeat_time=1.0))])
    asked_of = Counter(group[0].video_path for group in groups)
    found: dict[str, RecordQuestion] = {}
    for group in groups:
        first = group[0]
        is_answered = first.turns[-1].speaker == "gpt"
        question_id = _video_id(first) if asked_of[first.video_path] == 1 else first.id
        question = replace(first, id=question_id, turns=first.turns[:-1] if is_answered else first.turns)
        if wanted is not None and question_id not in wanted:
            continue
        if question_id in found:
            raise UserError(
                f"{first.source}: id {question_id!r} asks another question than {found[question_id].sample.source}: "
                "give each question an id of its own"
            )
        found[question_id] = RecordQuestion(question, tuple(s.turns[-1].text for s in group) if is_answered else ())
    return found


def _video_id(sample: Sample) -> str:
    """The id of the video, where the record is called `<video's id>-0` and takes the boxes beside it."""
    path, tracks = sample.video_path, sample.tracks
    is_theirs = path is not None and len(tracks) == 1 and isinstance(tracks[0], TrackFile)
    return path.stem if is_theirs and path is not None and sample.id == f"{path.stem}-0" else sample.id


def answers_known(questions: Mapping[str, RecordQuestion]) -> dict[str, list[str]]:
    """The answers that records give, by the questions' ids; what they only ask is left out."""
    return {i: list(question.answers) for i, question in questions.items() if question.answers}


def read_references(path: Path) -> dict[str, list[str]]:
    """Captions to score against: `{"captions": {id: [caption, ...]}}`, what stands inside, or records with answers.

    Args:
        path: JSON in the challenge's form, a meta JSON, or a file of records (`.jsonl`, or a list).
    Raises:
        UserError: it is none of these, or its records have no answers.
    """
    if not holds_records(path):
        try:
            return read_captions(path)
        except UserError as error:
            raise UserError(
                f"{error}; records will do too: a meta JSON, or JSONL. Were predictions and references swapped?"
            ) from error
    known = answers_known(read_questions(entries_in(path)))
    if not known:
        raise UserError(f"{path}: no record ends with a gpt turn, so that there is nothing to score against")
    return known
