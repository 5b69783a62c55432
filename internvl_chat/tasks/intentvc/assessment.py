"""All that is said about a run: its scores, how sure they are, and the same for the parts of the test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from internvl_chat.boxes import BoxArray
from internvl_chat.scoring.captions.caption_scores import ScoreTable, score_captions
from internvl_chat.scoring.significance import Interval, confidence_intervals
from internvl_chat.tasks.intentvc.groups import group_ids
from internvl_chat.tasks.intentvc.submission import SPLITS, challenge_ids


@dataclass(frozen=True)
class GroupScores:
    """A part of the captions: how many, and their scores by name."""

    captions: int
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Assessment:
    """A run's scores with 95 % intervals, its groups as grouping -> group -> scores, and the ids it leaves out."""

    table: ScoreTable
    scores: Mapping[str, float]
    intervals: Mapping[str, Interval]
    groups: Mapping[str, Mapping[str, GroupScores]]
    without_prediction: Sequence[str]
    without_references: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """What the `score` command prints as JSON."""
        return {
            "captions": len(self.table.ids),
            "without_prediction": len(self.without_prediction),
            "without_references": len(self.without_references),
            "scores": dict(self.scores),
            "intervals": {name: asdict(interval) for name, interval in self.intervals.items()},
            "groups": {
                kind: {name: asdict(group) for name, group in parts.items()} for kind, parts in self.groups.items()
            },
        }


def assess(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    tracks: Mapping[str, BoxArray] | None = None,
    *,
    java: bool = True,
    spice: bool = False,
    resamples: int = 1000,
    seed: int = 0,
) -> Assessment:
    """Score a run as a whole and in its groups.

    Args:
        tracks: id -> boxes [T, 4] in thousandths, for every id scored; None leaves out size and presence.
        resamples, seed: of the bootstrap.
    Raises:
        UserError: see `score_captions`.
    """
    table = score_captions(predictions, references, java=java, spice=spice)
    groups = {
        kind: {name: GroupScores(len(ids), table.of_ids(ids).corpus()) for name, ids in parts.items()}
        for kind, parts in group_ids(table.ids, tracks).items()
    }
    return Assessment(
        table,
        table.corpus(),
        confidence_intervals(table, resamples, seed),
        groups,
        [i for i in references if i not in predictions],
        [i for i in predictions if i not in references],
    )


def scores_of_parts(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], *, java: bool = True
) -> dict[str, dict[str, float]]:
    """The challenge's scores of each part of a run: its public and its private captions, each scored by itself.

    A run that is not made of ids of both parts is one part, `all`.
    """
    scored = {i for i in predictions if i in references}
    parts: dict[str, set[str]] = {split: scored & set(challenge_ids(split)) for split in SPLITS}
    if not all(parts.values()) or scored - set().union(*parts.values()):
        parts = {"all": scored}
    return {
        part: score_captions({i: predictions[i] for i in predictions if i in ids}, references, java=java).corpus()
        for part, ids in parts.items()
    }
