"""The GPUs that a plan knows, and what they reach: rates measured on one kind, scaled to the others.

Measured by `benchmarks.gpu_proof` in three runs on NVIDIA H200s on 2026-11-26 (torch 2.11, CUDA 13.0;
benchmarks/GPU.md). For another card products and attention are scaled by its peak FLOP/s, and what memory binds by
its bandwidth: an assumption, until the proof has run there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Card(NamedTuple):
    """A GPU: dense peak in FLOP/s of bfloat16, GiB that a program sees, and peak bytes a second of its memory."""

    peak_flops: float
    memory_gib: float
    bytes_per_s: float


# Peaks as the makers state them (V100: float16). Of the memory, makers count in gigabytes, and the driver keeps some.
GPUS = {
    "a10": Card(125e12, 22.0, 0.600e12),
    "a100": Card(312e12, 79.1, 2.039e12),
    "a6000": Card(155e12, 47.4, 0.768e12),
    "h100": Card(989e12, 79.2, 3.35e12),
    "h100-nvl": Card(835e12, 93.0, 3.9e12),
    "h100-pcie": Card(756e12, 79.2, 2.0e12),
    "h200": Card(989e12, 139.8, 4.8e12),
    "l40s": Card(362e12, 44.4, 0.864e12),
    "rtx-3090": Card(71e12, 23.6, 0.936e12),
    "rtx-4090": Card(165e12, 23.6, 1.008e12),
    "rtx-5090": Card(210e12, 31.4, 1.792e12),
    "v100": Card(125e12, 31.7, 0.900e12),
}
MEASURED_CARD = "h200"
# The rank at which products with LoRA's matrices were timed.
MEASURED_RANK = 128


def kind_of(device_name: str) -> str | None:
    """The row of `GPUS` that a device's name speaks of, the most exact one."""
    name = device_name.lower()
    kinds = [kind for kind in GPUS if all(word in name for word in kind.split("-"))]
    return max(kinds, key=len, default=None)


@dataclass(frozen=True)
class Rates:
    """What a card reaches in a training pass.

    Args:
        products: FLOP/s of a product of large matrices.
        low_rank: FLOP/s of a product with one of LoRA's matrices at `MEASURED_RANK`. Reading the other operand takes
            the time, so it goes with the rank and with the memory's bandwidth.
        attention: FLOP/s of attention, forward and backward, a backward pass counted as two and a half forward ones.
        bytes_per_s: read and written by what is done element by element. It is dropout's, whose kernel moves just the
            bytes that are counted for it.
    """

    products: float
    low_rank: float
    attention: float
    bytes_per_s: float

    @classmethod
    def of(cls, card: Card) -> Rates:
        """A card's, measured or scaled."""
        measured = GPUS[MEASURED_CARD]
        compute = card.peak_flops / measured.peak_flops
        memory = card.bytes_per_s / measured.bytes_per_s
        return cls(
            products=MEASURED.products * compute,
            low_rank=MEASURED.low_rank * memory,
            attention=MEASURED.attention * compute,
            bytes_per_s=MEASURED.bytes_per_s * memory,
        )

    def low_rank_at(self, rank: int) -> float:
        """FLOP/s of a product with a matrix of another rank."""
        return min(self.products, self.low_rank * rank / MEASURED_RANK)

    def as_text(self) -> str:
        """The four of them, for a person."""
        return (
            f"products {self.products / 1e12:.0f}, LoRA {self.low_rank / 1e12:.0f} (rank {MEASURED_RANK}), attention "
            f"{self.attention / 1e12:.0f} TFLOP/s, element by element {self.bytes_per_s / 1e12:.2f} TB/s"
        )


# Means of the runs: products 783, 762, 734 TFLOP/s; LoRA's 218 and 201 (106 in the third, where kernels were timed one
# by one and clocks had not come up); attention, both lengths, 515, 510 and 518; dropout 2.83, 2.88 and 2.44 TB/s.
MEASURED = Rates(products=760e12, low_rank=209e12, attention=514e12, bytes_per_s=2.72e12)
