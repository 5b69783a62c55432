"""Whether captions follow the box: each clip with its own track, with another object's, and with none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from internvl_chat.tasks.benchmark import Benchmark


def read(source: Path) -> Benchmark:
    """See `benchmark_of_pairs.read`; what asks a model needs torch, and reports do not."""
    from internvl_chat.tasks.control import benchmark_of_pairs

    return benchmark_of_pairs.read(source)
