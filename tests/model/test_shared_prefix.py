"""Several answers in one pass, several samples in one row: the same loss and gradients as each alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from internvl_chat.contracts import PackedFeatures, SharedPrefix
from internvl_chat.data.prompts.encoder import SamplePlan
from internvl_chat.data.training_set.collator import PackCollator
from internvl_chat.data.training_set.packing import LossReduction, pack_answers
from internvl_chat.model.checkpoint import load_base
from internvl_chat.model.memory.recomputation import Recomputation, recompute
from internvl_chat.model.shared_prefix import answer_mask, use_shared_prefix_attention
from internvl_chat.vision import Vision
from tests.helpers import IMAGE_TOKEN_ID, TILE_PX, TOKENS_PER_FRAME, randomise

# (tiles, boxes, answers' lengths): a video with three answers, an image, a text with two answers, a video with one.
RECORDS = [
    (3, [[105, 230, 870, 940], [0, 0, 0, 0], [400, 333, 1000, 670]], [5, 2, 7]),
    (1, [[0, 0, 0, 0]], [4]),
    (0, [], [3, 6]),
    (2, [[0, 0, 300, 300], [100, 0, 500, 1000]], [1]),
]


BLANK = {"pixel_values": torch.zeros(1, 3, TILE_PX, TILE_PX), "boxes": torch.zeros(1, 4, dtype=torch.int64)}


def plans_and_pixels(number: int) -> tuple[list[SamplePlan], Vision]:
    tiles, boxes, answer_lengths = RECORDS[number]
    generator = torch.Generator().manual_seed(number)

    def text(length: int) -> list[int]:
        return torch.randint(20, 60, (length,), generator=generator).tolist()

    prompt = text(3 + number) + [IMAGE_TOKEN_ID] * (tiles * TOKENS_PER_FRAME) + text(4)
    rows = np.array(boxes, dtype=np.int64).reshape(-1, 4)
    plans = []
    for length in answer_lengths:
        answer = text(length)
        ids, labels = prompt + answer + [19], [-100] * len(prompt) + answer + [-100]
        plans.append(SamplePlan(ids, labels, np.arange(tiles), {"boxes": torch.from_numpy(rows)} if tiles else {}))
    pixels = torch.randn(tiles, 3, TILE_PX, TILE_PX, generator=generator)
    return plans, {"pixel_values": pixels} if tiles else {}


def packed(number: int, reduction: LossReduction = "token") -> PackedFeatures:
    return pack_answers(*plans_and_pixels(number), reduction)


def one_by_one(number: int, reduction: LossReduction = "token") -> list[PackedFeatures]:
    plans, pixels = plans_and_pixels(number)
    return [pack_answers([plan], pixels, reduction) for plan in plans]


@pytest.fixture
def model(base_folder: Path, request: pytest.FixtureRequest) -> PreTrainedModel:
    """A captioner in training mode, every part trained, whose adapters add something."""
    captioner = load_base(
        str(base_folder),
        num_adapter_layers=2,
        dtype=torch.float32,
        attn_implementation=getattr(request, "param", None),
    )
    use_shared_prefix_attention(captioner)
    randomise(p for name, p in captioner.named_parameters() if "_out." in name and "box_adapters" in name)
    return captioner.train()


def loss_and_gradients(model: nn.Module, rows: list[list[PackedFeatures]]) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of rows, divided by the weight of all that they supervise, and what it asks of every parameter."""
    model.zero_grad()
    collate = PackCollator(BLANK)
    batches = [collate(row) for row in rows]
    total = sum(float(batch["loss_weights"].sum()) for batch in batches)
    losses = [model(**batch, num_items_in_batch=total).loss for batch in batches]
    torch.stack(losses).sum().backward()
    gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}
    return float(torch.stack(losses).sum().detach()), gradients


def assert_alike(model: nn.Module, one: list[list[PackedFeatures]], other: list[list[PackedFeatures]]) -> None:
    loss, gradients = loss_and_gradients(model, one)
    expected_loss, expected = loss_and_gradients(model, other)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    scale = max(float(g.abs().max()) for g in expected.values())
    assert scale > 0
    for name, gradient in gradients.items():
        # Gradients that cancel to nothing (a key's bias) hold rounding only: those are held against the largest.
        size = max(float(expected[name].abs().max()), 1e-3 * scale)
        assert float((gradient - expected[name]).abs().max()) / size < 1e-5, name


@pytest.mark.parametrize("model", ["sdpa", "eager"], indirect=True)
@pytest.mark.parametrize("reduction", ["token", "sample", "square"])
def test_answers_in_one_pass_have_the_gradients_of_separate_samples(
    model: PreTrainedModel, reduction: LossReduction
) -> None:
    assert_alike(model, [[packed(0, reduction)]], [[row] for row in one_by_one(0, reduction)])


def test_a_pack_of_mixed_records_has_the_gradients_of_its_records_alone(model: PreTrainedModel) -> None:
    assert_alike(model, [[packed(n) for n in range(4)]], [[row] for n in range(4) for row in one_by_one(n)])


@pytest.mark.parametrize("layers", [1, 2])
def test_recomputing_layers_changes_nothing(layers: int, model: PreTrainedModel) -> None:
    expected_loss, expected = loss_and_gradients(model, [[packed(0), packed(2)]])
    recompute(model, Recomputation.of_layers(layers))
    recomputed = [layer.gradient_checkpointing for layer in model.model.language_model.layers]
    assert recomputed == [number < layers for number in range(2)]
    loss, gradients = loss_and_gradients(model, [[packed(0), packed(2)]])
    assert loss == expected_loss
    assert all(torch.equal(gradients[name], expected[name]) for name in expected)


def test_a_packed_row_of_one_sample_has_the_native_models_loss(model: PreTrainedModel, base_folder: Path) -> None:
    (plan,), pixels = plans_and_pixels(3)
    row = PackCollator(BLANK)([pack_answers([plan], pixels, "token")])
    native = load_base(str(base_folder), num_adapter_layers=2, dtype=torch.float32)
    native.load_state_dict(model.state_dict())
    expected = native(
        input_ids=torch.tensor([plan.input_ids]),
        labels=torch.tensor([plan.labels]),
        vision={**pixels, **plan.tensors},
    ).loss
    assert float(model(**row).loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)


def test_a_row_of_text_alone_gives_every_trained_layer_a_gradient(model: PreTrainedModel) -> None:
    batch = PackCollator(BLANK)([packed(2)])
    assert batch["vision"]["pixel_values"].shape == (1, 3, TILE_PX, TILE_PX) and not batch["vision"]["boxes"].any()
    model(**batch).loss.backward()
    names = [name for name, p in model.named_parameters() if p.grad is None]
    assert names == []
    assert not any(p.grad.any() for name, p in model.named_parameters() if "vision_tower" in name)


def test_frozen_trunk_keeps_no_autograd_state(model: PreTrainedModel) -> None:
    tower = model.model.vision_tower
    pixels = torch.randn(2, 3, TILE_PX, TILE_PX)
    assert tower.trunk(pixels).requires_grad
    tower.requires_grad_(False)
    tower.box_adapters.requires_grad_(True)
    assert not tower.trunk(pixels).requires_grad
    assert tower(pixels, boxes=torch.tensor([[1, 2, 700, 800], [0, 0, 0, 0]])).last_hidden_state.requires_grad


def test_a_model_set_up_for_packed_rows_still_generates_as_before(base_folder: Path) -> None:
    from tests.model.inputs import BOXES, boxed, inputs_of

    captioner = load_base(str(base_folder), num_adapter_layers=2, dtype=torch.float32).eval()
    inputs = inputs_of()
    inputs["attention_mask"][:, :2] = 0
    wanted = captioner.generate(**boxed(inputs, BOXES), max_new_tokens=6, do_sample=False)
    use_shared_prefix_attention(captioner)
    assert torch.equal(captioner.generate(**boxed(inputs, BOXES), max_new_tokens=6, do_sample=False), wanted)


def test_attention_without_a_packed_form_is_named(base_folder: Path) -> None:
    captioner = load_base(
        str(base_folder), num_adapter_layers=2, dtype=torch.float32, attn_implementation="flex_attention"
    )
    with pytest.raises(ValueError, match="'flex_attention' cannot read packed rows"):
        use_shared_prefix_attention(captioner)


def test_an_answer_sees_the_prompt_and_itself_only() -> None:
    mask = answer_mask(SharedPrefix(2, (1, 3)))
    assert mask.int().tolist() == [
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [1, 1, 0, 1, 1, 0],
        [1, 1, 0, 1, 1, 1],
    ]
