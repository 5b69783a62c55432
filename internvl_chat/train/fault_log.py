"""Samples that break while training: they are left out and counted, each is named once, and too many stop the run."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from internvl_chat.contracts import Sample, UserError

logger = logging.getLogger(__name__)

# Lines of the list that stops a run; the log has them all.
_MOST_LISTED = 50


@dataclass(frozen=True)
class SkippedSample:
    """A sample that was left out, and why."""

    sample_id: str
    source: str
    reason: str

    @property
    def key(self) -> tuple[str, str]:
        return self.source, self.sample_id

    def __str__(self) -> str:
        """Where the sample stands, and the reason; one that already says where does not say it twice."""
        reason = self.reason.removeprefix(f"{self.source}: ").removeprefix(f"sample {self.sample_id!r}: ")
        return f"{self.source}: sample {self.sample_id!r}: {reason}"


class FaultLog:
    """The samples of a training set that were left out. A sample that breaks again in a later epoch counts once.

    Args:
        num_samples: of the training set.
        max_bad_fraction: share of them that may break (`--max_bad_fraction`); 0 allows none.
        largest_pass: samples that break together; as many may, unless none may.
    """

    def __init__(self, num_samples: int, max_bad_fraction: float = 0.001, largest_pass: int = 1) -> None:
        if not 0 <= max_bad_fraction <= 1:
            raise UserError(f"--max_bad_fraction {max_bad_fraction}: expected 0 to 1")
        self.num_samples = num_samples
        self.max_bad_fraction = max_bad_fraction
        self.most = max(max_bad_fraction * num_samples, largest_pass) if max_bad_fraction else 0
        self.faults: dict[tuple[str, str], SkippedSample] = {}

    def skip(self, sample: Sample, error: Exception | str) -> None:
        """Record that a sample is left out.

        Raises:
            UserError: with this one more than `max_bad_fraction` of the samples are bad; it lists them.
        """
        fault = SkippedSample(sample.id, sample.source, str(error))
        if fault.key in self.faults:
            return
        self.faults[fault.key] = fault
        logger.warning("skipped %s", fault)
        if len(self.faults) > self.most:
            raise UserError(
                f"{self.summary()}, more than --max_bad_fraction {self.max_bad_fraction}; 'python -m internvl_chat "
                f"check META.json' finds them all before training:\n{self.listing()}"
            )

    def remember(self, faults: Iterable[SkippedSample]) -> None:
        """Count what an earlier part of the run left out."""
        self.faults = {**{fault.key: fault for fault in faults}, **self.faults}

    def summary(self) -> str:
        """How many samples were left out, in one line."""
        return f"{len(self.faults)} of {self.num_samples} samples cannot be used"

    def listing(self) -> str:
        """The samples left out, one a line."""
        lines = [f"  {fault}" for fault in self.faults.values()]
        if len(lines) > _MOST_LISTED:
            lines[_MOST_LISTED:] = [f"  ... and {len(lines) - _MOST_LISTED} more"]
        return "\n".join(lines)
