"""The seconds that a plan says: against a pass that was timed, and bytes against those that the real code moves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.fake_gpu import counted_moves
from benchmarks.workloads import LORA_DROPOUT, TRAINED, W2, Workload, config_of
from internvl_chat.model.memory.recomputation import Recomputation
from internvl_chat.model.trainable import TrainablePart
from internvl_chat.planning import seconds
from internvl_chat.planning.cards import GPUS, MEASURED, Rates
from internvl_chat.planning.footprint import Footprint, PassShape
from internvl_chat.planning.seconds import moved_bytes, optimizer_seconds, pass_seconds

# InternVL3-8B, 32 frames, five captions: 508 million weights are trained.
WORK, TRAINED_WEIGHTS = W2.with_frames(32), 508e6
CHEAP_AND_TOWER = Recomputation(tower=True, cheap=True)
# Seconds of a step as `benchmarks.gpu_proof` took them on one H200 on 2026-11-26 (benchmarks/GPU.md), when product,
# scaling and sum of LoRA were operators of their own.
LORA_OUTPUT_THEN = (10, 4)
TAKEN = [
    (Recomputation(), 0.9379),
    (Recomputation(), 0.9417),
    (Recomputation.of_layers(28), 1.308),
    (CHEAP_AND_TOWER, 1.042),
]


def footprint_of(work: Workload, dropout: float = LORA_DROPOUT, trained: TrainablePart = TRAINED) -> Footprint:
    return Footprint(config_of(work), trained, work.num_adapter_layers, dropout)


def seconds_on(kind: str, again: Recomputation, shape: PassShape = WORK.pass_shape) -> float:
    rates = Rates.of(GPUS[kind])
    in_pass = pass_seconds(footprint_of(WORK), shape, again, rates)
    return sum(in_pass.values()) + optimizer_seconds(TRAINED_WEIGHTS, rates)


@pytest.mark.parametrize(("again", "taken"), TAKEN)
def test_a_step_takes_as_long_as_was_measured(
    again: Recomputation, taken: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seconds, "_LORA_OUTPUT", LORA_OUTPUT_THEN)
    assert seconds_on("h200", again) == pytest.approx(taken, rel=0.05)


@pytest.mark.parametrize("dropout", [0.0, LORA_DROPOUT])
@pytest.mark.parametrize("again", [*list(Recomputation.steps(3))[:4], Recomputation.of_layers(3)])
def test_bytes_at_full_width_are_those_that_the_pass_moves(again: Recomputation, dropout: float) -> None:
    """On fake tensors through the real code, with few layers."""
    few = {"text": {**WORK.text, "num_hidden_layers": 3}, "vision": {**WORK.vision, "num_hidden_layers": 6}}
    work = replace(WORK, **few)
    planned = moved_bytes(footprint_of(work, dropout), work.pass_shape, again)
    assert planned == pytest.approx(counted_moves(work, again, dropout), rel=0.08)


def test_a_card_is_scaled_by_what_binds_it() -> None:
    assert Rates.of(GPUS["h200"]) == MEASURED
    slower_memory = Rates.of(GPUS["h100"])
    assert slower_memory.products == MEASURED.products, "the same chip"
    assert slower_memory.bytes_per_s == pytest.approx(MEASURED.bytes_per_s * 3.35 / 4.8)
    everything = Recomputation.of_layers(28)
    by_card = [seconds_on(kind, everything) for kind in ("h200", "h100", "a100", "l40s")]
    assert by_card == sorted(set(by_card))


def test_a_product_with_few_columns_takes_what_reading_the_rows_takes() -> None:
    assert MEASURED.low_rank_at(16) == MEASURED.low_rank / 8
    assert MEASURED.low_rank_at(4096) == MEASURED.products


def test_more_tokens_targets_and_layers_computed_again_take_longer() -> None:
    shape = WORK.pass_shape
    for longer in (
        replace(shape, tokens=shape.tokens + 1),
        replace(shape, tiles=shape.tiles + 1),
        replace(shape, targets=shape.targets + 1),
    ):
        assert seconds_on("h200", Recomputation(), longer) > seconds_on("h200", Recomputation())
    by_steps = [seconds_on("h200", again) for again in Recomputation.steps(28)]
    assert by_steps == sorted(set(by_steps)), "the planner takes the first that fits as the fastest"
    no_lora = TrainablePart(0, freeze_llm=True, freeze_mlp=False, freeze_backbone=True)
    rates = Rates.of(GPUS["h200"])
    parts = pass_seconds(footprint_of(WORK, trained=no_lora), shape, Recomputation(), rates)
    assert parts["LoRA"] == 0 and parts["computed again"] == 0
