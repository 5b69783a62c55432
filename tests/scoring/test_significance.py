"""Bootstrap and randomisation, against enumeration and against what is known of a mean."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from internvl_chat.contracts import UserError
from internvl_chat.scoring.captions.caption_scores import ScoreTable, score_captions
from internvl_chat.scoring.significance import compare, confidence_intervals


def table_of(cider: list[float], java: bool = True) -> ScoreTable:
    """A run whose captions have these CIDEr scores, and as many BLEU matches of 20."""
    scores = np.array(cider)
    lengths = np.full((len(scores), 1), 20.0)
    bleu = np.concatenate([lengths, lengths, *[scores[:, None]] * 4, *[lengths] * 4], axis=1)
    ids = tuple(f"dog-{number}" for number in range(len(scores)))
    return ScoreTable(ids, {"CIDEr": scores[:, None], "BLEU": bleu}, java)


def test_the_interval_of_a_mean_is_the_textbooks() -> None:
    scores = np.random.default_rng(3).gamma(2.0, size=400)
    interval = confidence_intervals(table_of(scores.tolist()), resamples=4000)["CIDEr"]
    half = 1.96 * scores.std() / 400**0.5
    assert (interval.low, interval.high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.1 * half)


def test_equal_scores_have_an_interval_of_no_width() -> None:
    for interval in confidence_intervals(table_of([3.0] * 7), resamples=50).values():
        assert interval.low == pytest.approx(interval.high, abs=1e-12)


def test_corpus_scores_are_resampled_as_what_they_are(captions: dict[str, list[str]]) -> None:
    """BLEU of a resample is BLEU of the captions drawn, repeats and all."""
    table = score_captions({i: c[0] for i, c in captions.items()}, {i: c[1:] for i, c in captions.items()}, java=False)
    draws = np.random.default_rng(8).multinomial(12, [1 / 12] * 12, size=40)
    drawn = [[i for i, times in zip(table.ids, draw, strict=True) for _ in range(times)] for draw in draws]
    scores = [table.of_ids(ids).corpus()["BLEU-4 (no Java)"] for ids in drawn]
    interval = confidence_intervals(table, resamples=40, seed=8)["BLEU-4 (no Java)"]
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(scores, [0.025, 0.975])), abs=1e-12)


def test_a_seed_gives_the_same_interval_again() -> None:
    table = table_of([1.0, 5.0, 2.0, 7.0])
    assert confidence_intervals(table, 30, seed=4) == confidence_intervals(table, 30, seed=4)
    assert confidence_intervals(table, 30, seed=4) != confidence_intervals(table, 30, seed=5)


def test_p_is_the_share_of_all_ways_to_swap() -> None:
    a, b = [3.0, 2.5, 6.0, 1.0, 4.0, 2.0, 5.5], [2.0, 2.7, 3.5, 1.2, 3.0, 2.5, 4.0]
    differences = np.array(a) - np.array(b)
    signs = np.array(list(product((1, -1), repeat=len(a))))
    exact = np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12)
    found = compare(table_of(a), table_of(b), resamples=20_000)["CIDEr"]
    assert 0.05 < exact < 0.2
    assert found.p_value == pytest.approx(exact, abs=0.01)
    assert found.value == pytest.approx(differences.mean())


def test_a_clear_gain_is_significant_and_a_run_does_not_differ_from_itself() -> None:
    scores = np.random.default_rng(0).uniform(1, 9, size=60)
    better, same = table_of((scores + 1 + 0.1 * np.sin(scores)).tolist()), table_of(scores.tolist())
    for name, gain in compare(better, same, resamples=199).items():
        assert gain.p_value == 1 / 200, name
        assert 0 < gain.interval.low < gain.value < gain.interval.high, name
    for difference in compare(same, same, resamples=99).values():
        assert (difference.value, difference.p_value) == (0.0, 1.0)
        assert (difference.interval.low, difference.interval.high) == (0.0, 0.0)


def test_captions_are_compared_whatever_their_order() -> None:
    one, other = table_of([1.0, 2.0]), table_of([2.0, 4.0])
    turned = ScoreTable(other.ids[::-1], {name: part[::-1] for name, part in other.sums.items()}, other.java)
    assert compare(one, turned, resamples=9)["CIDEr"].value == pytest.approx(-1.5)
    assert compare(turned, one, resamples=9)["CIDEr"].interval == compare(other, one, resamples=9)["CIDEr"].interval


def test_runs_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(UserError, match="without Java"):
        compare(table_of([1.0]), table_of([1.0], java=False))
    with pytest.raises(ValueError, match="2 and 1 captions of other ids"):
        compare(table_of([1.0, 2.0]), table_of([1.0]))
