"""Which clips a run is about: chosen ids, the challenge's test videos, or whatever the records ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from internvl_chat.data.records.record_questions import answers_known
from internvl_chat.inference.requests import Ask
from internvl_chat.inference.session import PredictionSession
from internvl_chat.tasks.intentvc.submission import SPLITS, Split, ids_of_split, read_ids, splits_in


@dataclass(frozen=True)
class AskedClips:
    """What is asked, clip by clip.

    Args:
        parts: ids by test split, or under "" where the run is no submission.
        references: answers that the records give, where all of their questions are asked.
    """

    asks: Sequence[Ask]
    parts: Mapping[str, list[str]]
    references: Mapping[str, Sequence[str]]

    @property
    def ids(self) -> list[str]:
        return [video_id for ids in self.parts.values() for video_id in ids]


def clips_to_ask(
    session: PredictionSession, ids_file: Path | None, split: Split | Literal["both", "records"] | None = None
) -> AskedClips:
    """The questions of a run.

    Args:
        ids_file: ask these ids, a record's own or videos in the challenge's layout.
        split: these test videos, or the questions of the records, with their own ids and tracks. None are both splits
            where the dataset holds test videos by the challenge's numbers, and the records where it holds none or there
            are several datasets.
    Raises:
        UserError: nothing is asked.
    """
    if ids_file is not None:
        ids = read_ids(ids_file)
        return AskedClips(session.asks(ids), {"": ids}, {})
    in_splits = split != "records" and (
        split is not None or (len(session.entries) == 1 and bool(splits_in(session.root)))
    )
    if in_splits:
        parts: dict[str, list[str]] = {
            name: ids_of_split(session.root, name) for name in SPLITS if split in (name, "both", None)
        }
        return AskedClips(session.asks_in_layout([i for ids in parts.values() for i in ids]), parts, {})
    questions = session.questions()
    asks = [session.ask_of(question.sample) for question in questions.values()]
    return AskedClips(asks, {"": list(questions)}, answers_known(questions))
