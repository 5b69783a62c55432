"""Packed rows: which samples share a pass, how a row is laid out, and how packs are filled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from internvl_chat.contracts import SharedPrefix, Turn, UserError
from internvl_chat.data.prompts.encoder import SampleEncoder, SamplePlan
from internvl_chat.data.records.annotations import DatasetEntry, read_samples
from internvl_chat.data.records.record_questions import group_by_prompt
from internvl_chat.data.training_set.collator import PackCollator
from internvl_chat.data.training_set.dataset import CaptionDataset, PackSampler
from internvl_chat.data.training_set.packing import pack_answers, plan_packs, supervised_weight

IGNORED = -100
TILES = {"pixel_values": torch.zeros(2, 3, 4, 4)}


BOXES = {"boxes": torch.tensor([[1, 2, 3, 4], [0, 0, 0, 0]])}
NO_BOX = {"boxes": torch.zeros(1, 4, dtype=torch.int64)}


def plan_of(prompt: list[int], answer: list[int], tail: list[int]) -> SamplePlan:
    labels = [IGNORED] * len(prompt) + answer + [IGNORED] * len(tail)
    return SamplePlan(prompt + answer + tail, labels, np.arange(2), BOXES)


def filled_with(value: float) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.full((2, 3, 4, 4), value)}


def dataset_of(entry: DatasetEntry, encoder: SampleEncoder, **changes: object) -> CaptionDataset:
    settings: dict = {"min_num_frame": 2, "max_num_frame": 5, "seed": 11, **changes}
    return CaptionDataset(read_samples(entry), encoder, **settings)


def test_answers_to_one_prompt_share_a_pass(shapes_entry: DatasetEntry) -> None:
    samples = read_samples(shapes_entry)
    groups = group_by_prompt(samples)
    assert [len(group) for group in groups] == [5] * 6
    assert [sample for group in groups for sample in group] == samples
    assert [len(group) for group in group_by_prompt(samples, 2)] == [2, 2, 1] * 6
    assert [len(group) for group in group_by_prompt(samples, 1)] == [1] * 30
    other = replace(samples[1], turns=(Turn("human", "<video>\nWhat?"), samples[1].turns[1]))
    assert [len(group) for group in group_by_prompt([samples[0], other, samples[2]])] == [2, 1]


def test_what_is_repeated_has_passes_of_its_own(shapes_entry: DatasetEntry) -> None:
    samples = read_samples(shapes_entry)[:10]
    once, twice = group_by_prompt(samples), group_by_prompt(samples * 2)
    assert len(once) == 2 and twice == [*once, *once]
    assert [len(group) for group in group_by_prompt(samples * 3, 4)] == [4, 1] * 6


def test_an_answer_without_labels_adds_nothing_to_the_others() -> None:
    nothing = plan_of([5, 6, 7], [], [8, 9])
    taught = plan_of([5, 6, 7], [4], [3])
    row, alone = (pack_answers(plans, TILES, "token") for plans in ([nothing, taught], [taught]))
    assert row["input_ids"].tolist() == alone["input_ids"].tolist() == [5, 6, 7, 4]
    row = pack_answers([nothing, nothing], TILES, "token")
    assert row["layout"] == (SharedPrefix(5),) and not row["target_ids"].numel()


def test_a_row_holds_the_prompt_once_and_predicts_each_answer_from_its_end() -> None:
    plans = [plan_of([5, 6, 7], [8, 9], [3]), plan_of([5, 6, 7], [4, 4, 2], [3])]
    row = pack_answers(plans, TILES, "token")
    assert row["input_ids"].tolist() == [5, 6, 7, 8, 9, 4, 4, 2]
    assert row["position_ids"].tolist() == [0, 1, 2, 3, 4, 3, 4, 5]
    assert row["layout"] == (SharedPrefix(3, (2, 3)),)
    assert row["target_positions"].tolist() == [2, 3, 2, 5, 6]
    assert row["target_ids"].tolist() == [8, 9, 4, 4, 2]
    assert row["vision"]["boxes"].tolist() == [[1, 2, 3, 4], [0, 0, 0, 0]]


def test_answers_that_begin_alike_share_no_more_than_the_prompt() -> None:
    row = pack_answers(
        [plan_of([5, 6], [8, 9], []), plan_of([5, 6], [8, 9, 1], [])],
        TILES,
        "token",
    )
    assert row["layout"] == (SharedPrefix(2, (2, 3)),)


def test_where_tokens_merge_over_the_border_the_answers_begin_earlier() -> None:
    one = SamplePlan([5, 6, 8, 9], [IGNORED, IGNORED, 8, 9], np.arange(1), NO_BOX)
    other = SamplePlan([5, 7, 4], [IGNORED, IGNORED, 4], np.arange(1), NO_BOX)
    row = pack_answers([one, other], {"pixel_values": torch.zeros(1, 3, 4, 4)}, "token")
    assert row["layout"] == (SharedPrefix(1, (3, 2)),)
    assert row["input_ids"].tolist() == [5, 6, 8, 9, 7, 4]
    assert row["target_positions"].tolist() == [1, 2, 4]


def test_a_single_answer_is_one_causal_sequence_without_its_unsupervised_end() -> None:
    row = pack_answers([plan_of([5, 6, 7], [8, 9], [3, 3])], TILES, "token")
    assert row["layout"] == (SharedPrefix(5),)
    assert row["input_ids"].tolist() == [5, 6, 7, 8, 9]
    assert row["target_positions"].tolist() == [2, 3]


@pytest.mark.parametrize(("reduction", "weights"), [("token", 1), ("sample", 1 / 3), ("square", 3**-0.5)])
def test_reduction_weighs_an_answers_tokens(reduction: str, weights: float) -> None:
    row = pack_answers([plan_of([5], [8, 9, 9], [])], TILES, reduction)  # type: ignore[arg-type]
    assert row["loss_weights"].tolist() == pytest.approx([weights] * 3)
    assert supervised_weight(0, reduction) == 1  # type: ignore[arg-type]


def test_collation_shifts_positions_and_joins_pictures() -> None:
    first = pack_answers([plan_of([5, 6], [8], []), plan_of([5, 6], [9], [])], filled_with(1.0), "token")
    second = pack_answers([plan_of([7], [4, 3], [])], filled_with(2.0), "token")
    row = PackCollator({})([first, second])
    assert row["input_ids"].tolist() == [[5, 6, 8, 9, 7, 4, 3]]
    assert row["position_ids"].tolist() == [[0, 1, 2, 2, 0, 1, 2]]
    assert row["layout"] == (SharedPrefix(2, (1, 1)), SharedPrefix(3))
    assert row["target_positions"].tolist() == [[1, 1, 4, 5]]
    assert row["vision"]["pixel_values"][:, 0, 0, 0].tolist() == [1, 1, 2, 2] and row["vision"]["boxes"].shape == (4, 4)


def test_sizes_are_those_of_the_features(shapes_entry: DatasetEntry, encoder: SampleEncoder) -> None:
    dataset = dataset_of(shapes_entry, encoder, captions_per_pass=3)
    for epoch in (1, 2):
        dataset.set_epoch(epoch)
        for index, size in enumerate(dataset.sizes(epoch)):
            features = dataset[index]
            assert (size.tokens, size.tiles) == (len(features["input_ids"]), len(features["vision"]["pixel_values"]))


def test_packs_keep_the_budget_and_hold_every_pass_once(shapes_entry: DatasetEntry, encoder: SampleEncoder) -> None:
    dataset = dataset_of(shapes_entry, encoder, captions_per_pass=1)
    sampler = PackSampler(dataset, max_tokens=1800, step_packs=2, num_epochs=3, tile_cost=1.0)
    assert len(sampler) % 2 == 0
    seen = []
    for epoch in range(3):
        sampler.sampler.set_epoch(epoch)
        packs, sizes = list(sampler), dataset.sizes(epoch)
        assert len(packs) == len(sampler)
        assert sorted(index for pack in packs for index in pack) == list(range(30))
        assert all(sum(sizes[index].tokens for index in pack) <= 1800 for pack in packs)
        seen.append(packs)
    assert seen[0] != seen[1] != seen[2]


def test_packs_of_a_step_cost_about_the_same() -> None:
    rng = np.random.default_rng(0)
    tokens, tiles = rng.integers(50, 900, 400).tolist(), rng.integers(0, 40, 400)
    costs = [float(t + 30 * n) for t, n in zip(tokens, tiles, strict=True)]
    packs = plan_packs(tokens, costs, rng.permutation(400).tolist(), num_packs=72, max_tokens=4000, step_packs=4)
    assert packs is not None and len(packs) == 72
    spent = np.array([sum(costs[i] for i in pack) for pack in packs]).reshape(-1, 4)
    assert (spent.max(1) / spent.mean(1)).max() < 1.1


def test_too_few_prompts_for_a_step_are_named(shapes_entry: DatasetEntry, encoder: SampleEncoder) -> None:
    with pytest.raises(UserError, match="6 prompts cannot fill the 8 packs"):
        PackSampler(dataset_of(shapes_entry, encoder), max_tokens=9000, step_packs=8, num_epochs=1, tile_cost=0)
