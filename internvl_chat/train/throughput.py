"""What a training step cost, for the log: captions and tokens a second, waiting for data, memory, FLOPs."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence

import torch

from internvl_chat.contracts import PackedBatch
from internvl_chat.planning.footprint import Footprint, PassShape
from internvl_chat.vision import Vision


class Throughput:
    """Counts what a rank trained on between two log lines.

    Args:
        num_tiles: counts the tiles of a batch.
        footprint: what a pass costs in FLOPs, what checkpointing computes again not counted; None leaves them out.
        peak_flops: of one GPU; with it the log has the MFU, the share of the peak that those FLOPs come to.
    """

    def __init__(
        self,
        num_tiles: Callable[[Vision], int],
        footprint: Footprint | None = None,
        peak_flops: float | None = None,
    ) -> None:
        self.num_tiles = num_tiles
        self.footprint = footprint
        self.peak_flops = peak_flops
        self._reset()

    def _reset(self) -> None:
        self.captions = self.tokens = self.tiles = self.targets = self.samples = 0
        self.data_wait_s = 0.0
        self.started = time.perf_counter()

    def count(self, batches: Sequence[PackedBatch], data_wait_s: float) -> None:
        """Add the batches of an optimizer step and the seconds that were spent waiting for them."""
        self.data_wait_s += data_wait_s
        for batch in batches:
            self.captions += sum(len(prefix.answer_lengths) or 1 for prefix in batch["layout"])
            self.tokens += batch["input_ids"].numel()
            self.tiles += self.num_tiles(batch["vision"])
            self.targets += batch["target_ids"].numel()
            self.samples += len(batch["layout"])

    def totals(self) -> torch.Tensor:
        """What was counted since the last call of `rates`, [6] float64."""
        counts = [self.captions, self.tokens, self.tiles, self.targets, self.samples, self.data_wait_s]
        return torch.tensor(counts, dtype=torch.float64)

    def rates(self, totals_of_ranks: torch.Tensor) -> dict[str, float]:
        """The log's figures, and a new start.

        Args:
            totals_of_ranks: `totals` of every rank, [ranks, 6].
        """
        seconds = time.perf_counter() - self.started
        captions, tokens, tiles, targets, samples, wait_s = totals_of_ranks.sum(0).tolist()
        self._reset()
        rates = {
            "captions_per_s": round(captions / seconds, 3),
            "tokens_per_s": round(tokens / seconds, 1),
            "tiles_per_s": round(tiles / seconds, 2),
            "data_wait_share": round(wait_s / len(totals_of_ranks) / seconds, 4),
            "peak_memory_gb": round(peak_memory_bytes() / 1e9, 3),
        }
        if self.footprint is not None and samples:
            shape = PassShape(int(tiles), int(tokens), int(targets), int(samples))
            flops_per_s = sum(self.footprint.flops(shape).values()) / seconds
            rates["tflops_per_s"] = round(flops_per_s / 1e12, 4)
            if self.peak_flops:
                rates["mfu"] = round(flops_per_s / self.peak_flops / len(totals_of_ranks), 4)
        return rates


def peak_memory_bytes() -> int:
    """Most memory that tensors have taken on this process's GPU so far; on a CPU, of the process as a whole."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
