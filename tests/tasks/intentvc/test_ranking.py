"""The challenge's points, ties and final scores."""

from __future__ import annotations

import pytest

from internvl_chat.contracts import UserError
from internvl_chat.tasks.intentvc.ranking import final_scores, rank_runs


def scores(cider: float, meteor: float, bleu: float, rouge: float) -> dict[str, float]:
    return {"BLEU-1": 0.9, "BLEU-4": bleu, "METEOR": meteor, "CIDEr": cider, "ROUGE-L": rouge}


def places(runs: dict[str, dict[str, float]]) -> list[tuple[int, str, int]]:
    return [(s.place, s.run, s.points) for s in rank_runs(runs)]


def test_the_three_best_of_each_metric_get_points() -> None:
    runs = {
        "d": scores(0.9, 0.10, 0.10, 0.10),
        "a": scores(2.0, 0.40, 0.30, 0.60),
        "c": scores(1.0, 0.20, 0.50, 0.20),
        "b": scores(1.5, 0.30, 0.40, 0.30),
    }
    assert places(runs) == [(1, "a", 3 + 3 + 1 + 3), (2, "b", 8), (3, "c", 1 + 1 + 3 + 1), (4, "d", 0)]
    assert rank_runs(runs)[2].points_by_metric == {"CIDEr": 1, "METEOR": 1, "BLEU-4": 3, "ROUGE-L": 1}


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (scores(2.0, 0.3, 0.3, 0.5), scores(1.9, 0.4, 0.3, 0.5)),  # one metric each: CIDEr decides
        (scores(2.0, 0.4, 0.3, 0.5), scores(2.0, 0.3, 0.4, 0.5)),  # CIDEr equal: METEOR decides
        (scores(2.0, 0.4, 0.5, 0.2), scores(2.0, 0.4, 0.4, 0.3)),  # METEOR too: BLEU-4 decides
    ],
)
def test_ties_are_broken_by_cider_then_meteor_then_bleu(a: dict[str, float], b: dict[str, float]) -> None:
    ranked = places({"b": b, "a": a})
    assert [(place, run) for place, run, _ in ranked] == [(1, "a"), (2, "b")]
    assert ranked[0][2] == ranked[1][2]


def test_equal_scores_get_equal_points_and_share_a_place() -> None:
    same, worse = scores(2.0, 0.4, 0.5, 0.2), scores(1.0, 0.3, 0.4, 0.1)
    assert places({"a": same, "c": worse, "b": same}) == [(1, "a", 12), (1, "b", 12), (3, "c", 4)]


def test_runs_without_java_are_ranked_among_themselves() -> None:
    runs = {n: {"CIDEr (no Java)": v, "BLEU-4 (no Java)": 1 - v} for n, v in (("a", 0.2), ("b", 0.6))}
    assert places(runs) == [(1, "b", 5), (2, "a", 5)]
    with pytest.raises(UserError, match="with Java or without"):
        rank_runs({**runs, "c": scores(1, 1, 1, 1)})


@pytest.mark.parametrize("suffix", [" (characters)", " (characters) (no Java)"])
def test_runs_in_scripts_without_spaces_are_ranked(suffix: str) -> None:
    runs = {n: {f"CIDEr{suffix}": v, f"BLEU-4{suffix}": v} for n, v in (("a", 0.2), ("b", 0.6))}
    assert places(runs) == [(1, "b", 6), (2, "a", 4)]


def test_final_scores_are_the_mean_of_public_and_private() -> None:
    parts = {"public": scores(2.0, 0.4, 0.5, 0.2), "private": {**scores(1.0, 0.2, 0.4, 0.6), "SPICE": 0.1}}
    assert final_scores(parts) == pytest.approx(scores(1.5, 0.3, 0.45, 0.4))
