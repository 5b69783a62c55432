"""The parts of the proof, the most telling first, and how long each may take."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.gpu_proof import feeding, machine, prediction, rounding, training
from benchmarks.gpu_proof.scale import Measure


@dataclass(frozen=True)
class Part:
    """One process of the proof."""

    measure: Measure
    limit_s: int


PARTS = {
    "machine": Part(machine.facts, 30),
    "training": Part(training.steps, 200),
    "folded": Part(prediction.with_folded_lora, 80),
    "rounding": Part(rounding.decoding_error, 30),
    "launches": Part(training.launches, 45),
    "kernels": Part(machine.kernels, 40),
    "apart": Part(prediction.with_lora_apart, 70),
    "gradients": Part(rounding.gradients, 45),
    "copies": Part(feeding.copies, 20),
    "decoding": Part(feeding.decoding, 40),
}
