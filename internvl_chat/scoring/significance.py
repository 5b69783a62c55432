"""How sure a score is, and whether two runs differ: bootstrap and approximate randomisation over captions.

Resamples weigh the sums that scores are made of (see `scores.ScoreTable`), so corpus scores such as BLEU are resampled
as what they are, not as means of captions. Letters: N captions, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from internvl_chat.contracts import UserError
from internvl_chat.scoring.captions.caption_scores import FloatArray, ScoreTable

CONFIDENCE = 0.95
# Differences of sums that are equal but for the order of adding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Interval:
    """Where a score lies in the middle 95 % of resamples."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A score of one run minus another's on the same captions.

    `interval` is the paired bootstrap's; `p_value` is two-sided: how often a difference as large appears when each
    caption's run is drawn by lot.
    """

    value: float
    interval: Interval
    p_value: float


def _resample_weights(num_captions: int, resamples: int, seed: int) -> FloatArray:
    """How often each caption is drawn, [R, N]."""
    shares = np.full(num_captions, 1 / num_captions)
    return np.random.default_rng(seed).multinomial(num_captions, shares, size=resamples).astype(np.float64)


def _middle(values_R: FloatArray) -> Interval:
    low, high = np.quantile(values_R, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))


def share_interval(count: int, total: int) -> Interval:
    """Wilson's interval of a share, `count` of `total`; it stays inside 0 to 1 and is no point at either end.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, JASA 22, 1927.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share = count / total
    centre = share + z**2 / (2 * total)
    reach = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    scale = 1 + z**2 / total
    return Interval(max(0.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale))


def mean_interval(values: Sequence[float], resamples: int = 1000, seed: int = 0) -> Interval:
    """The bootstrap interval of a mean."""
    weights = _resample_weights(len(values), resamples, seed)
    return _middle(weights @ np.asarray(values, dtype=np.float64) / len(values))


def confidence_intervals(table: ScoreTable, resamples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """Bootstrap intervals of a run's scores, by name."""
    resampled = table.weighted(_resample_weights(len(table.ids), resamples, seed))
    return {name: _middle(values) for name, values in resampled.items()}


def compare(run: ScoreTable, baseline: ScoreTable, resamples: int = 1000, seed: int = 0) -> dict[str, Difference]:
    """How `run` differs from `baseline` on the same captions, by score.

    Raises:
        ValueError: they were scored on other ids, so that CIDEr's document frequencies are others.
        UserError: only one of them was scored without Java.
    """
    if set(run.ids) != set(baseline.ids):
        raise ValueError(f"{len(run.ids)} and {len(baseline.ids)} captions of other ids cannot be compared")
    ids = baseline.ids
    if run.java != baseline.java:
        raise UserError("one run was scored without Java: their tokens can differ, score both alike")
    a, b = run.of_ids(ids), baseline.of_ids(ids)
    observed_a, observed_b = a.corpus(), b.corpus()
    weights = _resample_weights(len(ids), resamples, seed)
    drawn_a, drawn_b = a.weighted(weights), b.weighted(weights)

    swapped = np.random.default_rng([seed, 1]).integers(0, 2, (resamples, len(ids))).astype(np.float64)
    counts = np.full(resamples, float(len(ids)))
    moved = {m: swapped @ (b.sums[m] - a.sums[m]) for m in a.sums}
    lots_a = a.scores_of({m: a.sums[m].sum(axis=0) + moved[m] for m in a.sums}, counts)
    lots_b = a.scores_of({m: b.sums[m].sum(axis=0) - moved[m] for m in a.sums}, counts)

    def difference(name: str) -> Difference:
        value = observed_a[name] - observed_b[name]
        as_large = np.abs(lots_a[name] - lots_b[name]) >= abs(value) - _ROUNDING
        p_value = (1 + int(as_large.sum())) / (1 + resamples)
        return Difference(value, _middle(drawn_a[name] - drawn_b[name]), p_value)

    return {name: difference(name) for name in observed_a}
