"""The seconds that a plan says: against a pass that was timed, and bytes against those that the real code moves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.fake_gpu import counted_moves
from benchmarks.workloads import LORA_DROPOUT, TRAINED, W2, Workload, config_of
from internvl_chat.model.memory.recomputation import Recomputation
from internvl_chat.model.trainable import TrainablePart
from internvl_chat.planning.cards import GPUS, MEASURED, Rates
from internvl_chat.planning.footprint import Footprint, PassShape
from internvl_chat.planning.seconds import moved_bytes, optimizer_seconds, pass_seconds

# InternVL3-8B, 32 frames, five captions: 508 million weights are trained.
WORK, TRAINED_WEIGHTS = W2.with_frames(32), 508e6
CHEAP_AND_TOWER = Recomputation(tower=True, cheap=True)
# Seconds of a step as `benchmarks.gpu_proof` took them on one H200 on 2026-11-26 (benchmarks/GPU.md, the third run),
# and the rates of single kernels in that run; LoRA's are those of the runs before.
TAKEN = [
    (Recomputation(), 0.8778),
    (Recomputation(), 0.8797),
    (Recomputation.of_layers(28), 1.220),
    (CHEAP_AND_TOWER, 0.9571),
]
H200 = Rates.of(GPUS["h200"])
RATES_THEN = Rates(products=734e12, low_rank=MEASURED.low_rank, attention=518e12, bytes_per_s=2.44e12)


def footprint_of(work: Workload, dropout: float = LORA_DROPOUT, trained: TrainablePart = TRAINED) -> Footprint:
    return Footprint(config_of(work), trained, work.num_adapter_layers, dropout)


def seconds_on(rates: Rates, again: Recomputation, shape: PassShape = WORK.pass_shape) -> float:
    in_pass = pass_seconds(footprint_of(WORK), shape, again, rates)
    return sum(in_pass.values()) + optimizer_seconds(TRAINED_WEIGHTS, rates)


@pytest.mark.parametrize(("again", "taken"), TAKEN)
def test_a_step_takes_as_long_as_was_measured(again: Recomputation, taken: float) -> None:
    """By the rates of the same run, and by those of a plan, a mean of runs that lie up to 10 % apart."""
    assert seconds_on(RATES_THEN, again) == pytest.approx(taken, rel=0.02)
    assert seconds_on(H200, again) == pytest.approx(taken, rel=0.05)


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
    by_card = [seconds_on(Rates.of(GPUS[kind]), everything) for kind in ("h200", "h100", "a100", "l40s")]
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
        assert seconds_on(H200, Recomputation(), longer) > seconds_on(H200, Recomputation())
    by_steps = [seconds_on(H200, again) for again in Recomputation.steps(28)]
    assert by_steps == sorted(set(by_steps)), "the planner takes the first that fits as the fastest"
    no_lora = TrainablePart(0, freeze_llm=True, freeze_mlp=False, freeze_backbone=True)
    rates = Rates.of(GPUS["h200"])
    parts = pass_seconds(footprint_of(WORK, trained=no_lora), shape, Recomputation(), rates)
    assert parts["LoRA"] == 0 and parts["computed again"] == 0
