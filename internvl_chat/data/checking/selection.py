"""Which records of videos a model is trained on: those whose frames, questions and tokens stay within its bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_chat.constants import VIDEO_PLACEHOLDER
from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.media.sources import frame_files
from internvl_chat.data.records.reader import RecordReader
from internvl_chat.files import parse_json, read_text, split_records


@dataclass(frozen=True)
class Bounds:
    """What a record may take.

    Args:
        tokens_per_frame: what a frame counts against `max_tokens`, beside the conversation's own tokens.
        max_question_words: the first question must have fewer, its placeholder counted; None is any number.
    """

    max_frames: int
    tokens_per_frame: int
    max_tokens: int
    max_question_words: int | None = None


# Source: T2Vid's filters; its questions have fewer than 30 words (LongQLoRA) or 500 (LongAlpaca).
BOUNDS = {"minicpm-v": Bounds(90, 96, 8192), "idefics3": Bounds(65, 169, 10240)}


@dataclass(frozen=True)
class Judged:
    """A record, and why it is left out; empty where it is not."""

    record: Mapping[str, Any]
    left_out: str = ""


def judge_records(annotation: Path, root: Path, bounds: Bounds, count_tokens: Callable[[str], int]) -> Iterator[Judged]:
    """Judge the records of a file one after the other.

    Args:
        root: what the folders of frames are relative to.
        count_tokens: the tokens of a text, with what a tokenizer puts before it.
    Raises:
        UserError: the file cannot be read, or a record is none.
    """
    reader = RecordReader(root)
    for raw in split_records(read_text(annotation), annotation):
        source = f"{annotation}:{raw.line}"
        record = parse_json(raw.text, source)
        yield Judged(record, _why_left_out(reader.read(record, source), bounds, count_tokens))


def _why_left_out(sample: Sample, bounds: Bounds, count_tokens: Callable[[str], int]) -> str:
    """The first rule that a sample breaks, in the original's order."""
    num_frames = _num_frames(sample)
    if num_frames is None:
        return "without its folder of frames"
    texts: Sequence[str] = [turn.text for turn in sample.turns]
    if sum(text.count(VIDEO_PLACEHOLDER) for text in texts) != 1 or VIDEO_PLACEHOLDER not in texts[0]:
        return "without exactly one <video>, in the first turn"
    # Line breaks part no words here: the original splits at spaces alone.
    if bounds.max_question_words is not None and len(texts[0].split(" ")) >= bounds.max_question_words:
        return f"with a question of {bounds.max_question_words} words or more"
    if num_frames > bounds.max_frames:
        return f"with more than {bounds.max_frames} frames"
    if count_tokens("\n".join(texts)) + bounds.tokens_per_frame * num_frames > bounds.max_tokens:
        return f"with more than {bounds.max_tokens} tokens"
    return ""


def _num_frames(sample: Sample) -> int | None:
    if sample.video_path is None or not sample.video_path.is_dir():
        return None
    try:
        return len(frame_files(sample.video_path, sample.root))
    except UserError:
        # A folder without a picture shows as little as one that is not there.
        return None


def reasons(judged: Sequence[Judged]) -> Counter[str]:
    """How many records were left out for each reason."""
    return Counter(one.left_out for one in judged if one.left_out)
