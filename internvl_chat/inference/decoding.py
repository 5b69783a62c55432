"""How captions are decoded: the settings that decide a caption's text, checked before anything is loaded."""

from __future__ import annotations

import math
from argparse import Namespace
from dataclasses import dataclass, fields
from numbers import Integral, Real

from internvl_chat.constants import MAX_NEW_TOKENS
from internvl_chat.contracts import UserError

# Scores that are divided by less may leave the range of float32, and there is nothing to draw from.
LEAST_TEMPERATURE = 1e-6
# The least that each whole number among the settings may be.
_LEAST_COUNTS = {"num_beams": 1, "max_new_tokens": 1, "num_candidates": 1, "seed": 0}


def check_count(name: str, value: object, least: int) -> None:
    """See to it that a setting is a whole number.

    Raises:
        UserError: it is of another type, or less than the least that it may be.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UserError(f"{name} given as {type(value).__name__}: expected a whole number")
    if value < least:
        raise UserError(f"{name}={value}: expected {least} or more")


@dataclass(frozen=True)
class Decoding:
    """How each caption is chosen.

    Without `temperature` the candidates are the best beams (one beam is greedy decoding). With it they are sampled;
    with `num_beams` above 1 too, the beams come first and samples fill up to `num_candidates`.

    Args:
        top_p: samples are drawn from the fewest tokens that hold this share of the probability.
        seed: of the samples; each is drawn from the seed, the ask's id and its own number alone.
    Raises:
        UserError: a setting of another type or out of its range, or settings that contradict each other.
    """

    num_beams: int = 1
    max_new_tokens: int = MAX_NEW_TOKENS
    temperature: float = 0.0
    top_p: float = 1.0
    num_candidates: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in _LEAST_COUNTS.items():
            check_count(name, getattr(self, name), least)
        for name in ("temperature", "top_p"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real):
                raise UserError(f"{name} given as {type(value).__name__}: expected a number")
        if self.temperature and not LEAST_TEMPERATURE <= self.temperature < math.inf:
            raise UserError(
                f"--temperature {self.temperature}: expected 0 (no sampling), or {LEAST_TEMPERATURE:g} and above"
            )
        if not 0 < self.top_p <= 1:
            raise UserError(f"--top_p {self.top_p}: expected above 0, up to 1")
        if not self.temperature and self.num_candidates > self.num_beams:
            raise UserError(
                f"--num_candidates {self.num_candidates} with --num_beams {self.num_beams}: beam search gives as many "
                "candidates as it has beams; raise --num_beams, or sample with --temperature"
            )
        if self.temperature and 1 < self.num_beams >= self.num_candidates:
            raise UserError(
                f"--temperature {self.temperature} with --num_beams {self.num_beams}: the beams come first, so nothing "
                f"would be sampled; give --num_candidates above {self.num_beams}, or drop one of the two"
            )

    @classmethod
    def from_arguments(cls, args: Namespace) -> Decoding:
        """The settings among an entry's parsed flags, which have the same names."""
        return cls(**{field.name: getattr(args, field.name) for field in fields(cls)})

    @property
    def num_best(self) -> int:
        """How many of the candidates are beams; the others are samples."""
        if not self.temperature:
            return self.num_candidates
        return self.num_beams if self.num_beams > 1 else 0

    @property
    def num_samples(self) -> int:
        return self.num_candidates - self.num_best

    @property
    def rows(self) -> int:
        """Most sequences that one ask keeps at a time."""
        return max(self.num_beams, self.num_samples)
