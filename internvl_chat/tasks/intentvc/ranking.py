"""The challenge's ranking: points for the three best of each metric, and what breaks a tie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from internvl_chat.contracts import UserError
from internvl_chat.scoring.captions.caption_scores import CHALLENGE_METRICS, CHARACTERS_SUFFIX, NO_JAVA_SUFFIX

POINTS = (3, 2, 1)


@dataclass(frozen=True)
class Standing:
    """A run's place, its points in all and by metric, and the scores they were given for."""

    place: int
    run: str
    points: int
    points_by_metric: Mapping[str, int]
    scores: Mapping[str, float]


def final_scores(parts: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """A run's final scores: the mean over its parts, public and private."""
    names = [name for name in next(iter(parts.values())) if all(name in scores for scores in parts.values())]
    return {name: sum(scores[name] for scores in parts.values()) / len(parts) for name in names}


def _ranked_names(runs: Mapping[str, Mapping[str, float]]) -> list[str]:
    for suffix in (written + java for written in ("", CHARACTERS_SUFFIX) for java in ("", NO_JAVA_SUFFIX)):
        names = [m + suffix for m in CHALLENGE_METRICS if all(m + suffix in scores for scores in runs.values())]
        if names:
            return names
    raise UserError(
        f"the runs share none of {', '.join(CHALLENGE_METRICS)}: were all scored alike, with Java or without?"
    )


def rank_runs(runs: Mapping[str, Mapping[str, float]]) -> list[Standing]:
    """Rank runs as the challenge does, the best first.

    In each of its four metrics the three best get 3, 2 and 1 points, equals the same; a tie in points is broken by
    CIDEr, then METEOR, then BLEU-4, and what is left shares a place. Metrics that a run lacks are not counted.

    Args:
        runs: run -> final scores by name.
    Raises:
        UserError: the runs share no metric of the challenge.
    """
    names = _ranked_names(runs)
    points = {
        run: {name: _points(scores[name], [other[name] for other in runs.values()]) for name in names}
        for run, scores in runs.items()
    }

    def key(run: str) -> tuple[float, ...]:
        return (sum(points[run].values()), *(runs[run][name] for name in names if not name.startswith("ROUGE")))

    ordered = sorted(runs, key=key, reverse=True)
    return [
        Standing(
            1 + sum(key(other) > key(run) for other in runs), run, sum(points[run].values()), points[run], runs[run]
        )
        for run in ordered
    ]


def _points(score: float, of_all: list[float]) -> int:
    better = sum(other > score for other in of_all)
    return POINTS[better] if better < len(POINTS) else 0
