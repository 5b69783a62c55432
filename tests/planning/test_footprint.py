"""The estimate of a pass against what a real forward and backward pass allocates, on a small model on CPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.counting import AllocatedBytes
from benchmarks.fake_gpu import counted_bytes, estimated_bytes
from benchmarks.workloads import W2, Workload
from internvl_chat.contracts import SharedPrefix
from internvl_chat.model.families.internvl.configuration import IntentVCNetConfig
from internvl_chat.model.families.internvl.model import IntentVCNetForConditionalGeneration
from internvl_chat.model.memory.recomputation import Recomputation, recompute
from internvl_chat.model.shared_prefix import use_shared_prefix_attention
from internvl_chat.model.trainable import TrainablePart
from internvl_chat.planning.footprint import Footprint, PassShape, frames_within, prompt_tokens
from tests.helpers import IMAGE_TOKEN_ID, tiny_config

TILE_PX, PATCH_PX, RANK, ADAPTERS = 56, 7, 12, 2
TOKENS_PER_TILE = (TILE_PX // PATCH_PX // 2) ** 2
ANSWERS, ANSWER_TOKENS, QUESTION_TOKENS = 3, 9, 70
LORA = TrainablePart(RANK, freeze_llm=False, freeze_mlp=False, freeze_backbone=True)
BOTH_LORA = TrainablePart(RANK, freeze_llm=False, freeze_mlp=False, freeze_backbone=False, use_backbone_lora=RANK)
UPPER_VIT = TrainablePart(
    RANK,
    freeze_llm=False,
    freeze_mlp=False,
    freeze_backbone=True,
    unfrozen_vit_layers=range(2, 5),
    unfreeze_lm_head=True,
)
FULL = TrainablePart(0, freeze_llm=False, freeze_mlp=False, freeze_backbone=False)


def config() -> IntentVCNetConfig:
    """Sizes that all differ, wide enough for matrices to outweigh what belongs to none."""
    vision = {"hidden_size": 60, "num_hidden_layers": 5, "num_attention_heads": 4, "intermediate_size": 200}
    vision |= {"image_size": [TILE_PX, TILE_PX], "patch_size": [PATCH_PX, PATCH_PX], "initializer_range": 0.02}
    text = {"hidden_size": 96, "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 2}
    text |= {"intermediate_size": 320, "vocab_size": 151, "initializer_range": 0.02}
    base = tiny_config(vision=vision, text=text, image_seq_length=TOKENS_PER_TILE)
    return IntentVCNetConfig.from_base(base, ADAPTERS)


def one_pass(trained: TrainablePart, tiles: int, recomputed: int, dropout: float) -> tuple[torch.nn.Module, Any]:
    """A model in bfloat16 and what it is called with: one prompt with three answers."""
    torch.manual_seed(0)
    model = IntentVCNetForConditionalGeneration(config()).bfloat16().train()
    use_shared_prefix_attention(model)
    wrapped: torch.nn.Module = model
    lora = trained.lora_config("qwen2", dropout)
    if lora is not None:
        wrapped = get_peft_model(model, lora, autocast_adapter_dtype=False)
    trained.mark(wrapped)
    recompute(model, Recomputation.of_layers(recomputed))
    prompt = QUESTION_TOKENS + tiles * TOKENS_PER_TILE
    ids = torch.full((1, prompt + ANSWERS * ANSWER_TOKENS), 30)
    ids[0, : tiles * TOKENS_PER_TILE] = IMAGE_TOKEN_ID
    targets = torch.arange(prompt, ids.shape[1])[None]
    given = {
        "input_ids": ids,
        "vision": {
            "pixel_values": torch.randn(tiles, 3, TILE_PX, TILE_PX).bfloat16(),
            "boxes": torch.tensor([[100, 200, 700, 900]] * tiles),
        },
        "position_ids": torch.arange(ids.shape[1])[None],
        "layout": (SharedPrefix(prompt, (ANSWER_TOKENS,) * ANSWERS),),
        "target_positions": targets - 1,
        "target_ids": ids[0, targets],
        "loss_weights": torch.ones(targets.shape),
    }
    return wrapped, given


def shape_of(tiles: int) -> PassShape:
    targets = ANSWERS * ANSWER_TOKENS
    return PassShape(tiles, QUESTION_TOKENS + tiles * TOKENS_PER_TILE + targets, targets)


def measured_bytes(trained: TrainablePart, tiles: int, recomputed: int, dropout: float) -> int:
    model, given = one_pass(trained, tiles, recomputed, dropout)
    with AllocatedBytes() as allocated:
        model(**given).loss.backward()
    return allocated.peak


@pytest.mark.parametrize(
    ("trained", "recomputed", "dropout"),
    [
        (LORA, 0, 0.0),
        (LORA, 0, 0.1),
        (LORA, 6, 0.1),
        (LORA, 2, 0.1),
        (BOTH_LORA, 0, 0.1),
        (UPPER_VIT, 0, 0.0),
        (FULL, 0, 0.0),
        (FULL, 6, 0.0),
    ],
)
def test_what_frames_add_to_the_peak(trained: TrainablePart, recomputed: int, dropout: float) -> None:
    """Between 4 and 12 tiles, so that gradients and all else that does not grow with a pass drops out."""
    footprint = Footprint(config(), trained, ADAPTERS, dropout)
    few, many = (
        footprint.peak_activation_bytes(shape_of(tiles), Recomputation.of_layers(recomputed)) for tiles in (4, 12)
    )
    measured = measured_bytes(trained, 12, recomputed, dropout) - measured_bytes(trained, 4, recomputed, dropout)
    assert 0.75 < (many - few) / measured < 1.35


@pytest.fixture(scope="module")
def eight_b() -> Workload:
    """InternVL3-8B's widths and 32 frames, with few layers."""
    work = W2.with_frames(32)
    return replace(work, text={**work.text, "num_hidden_layers": 3}, vision={**work.vision, "num_hidden_layers": 6})


@pytest.mark.parametrize("again", [*list(Recomputation.steps(3))[:4], Recomputation.of_layers(3)])
def test_memory_at_full_width_is_what_the_pass_takes(again: Recomputation, eight_b: Workload) -> None:
    """On fake tensors: what stays for the backward pass, and the peak."""
    counted, estimated = counted_bytes(eight_b, again), estimated_bytes(eight_b, again)
    assert estimated == pytest.approx(counted, rel=0.08)


def test_recomputing_and_dropout_change_the_estimate_as_they_should() -> None:
    plain, dropped = Footprint(config(), LORA, ADAPTERS, 0.0), Footprint(config(), LORA, ADAPTERS, 0.1)
    for recomputed in (0, 2, 6):
        again = Recomputation.of_layers(recomputed)
        peaks = [plain.peak_activation_bytes(shape_of(tiles), again) for tiles in range(1, 30)]
        assert peaks == sorted(set(peaks))
    shape = shape_of(12)
    nothing, everything = Recomputation(), Recomputation.of_layers(6)
    assert dropped.peak_activation_bytes(shape, nothing) > plain.peak_activation_bytes(shape, nothing)
    assert plain.peak_activation_bytes(shape, everything) < plain.peak_activation_bytes(shape, nothing) / 2
    assert Footprint(config(), LORA, 0).kept_bytes(shape, nothing)["ViT adapted layers"] == 0


def counted_flops(trained: TrainablePart, recomputed: int) -> tuple[float, float]:
    """What torch counts of a pass: of matrix products, and of the convolutions' forward passes."""
    model, given = one_pass(trained, 12, recomputed, 0.0)
    with FlopCounterMode(display=False) as counter:
        model(**given).loss.backward()
    counts = {str(op): flops for op, flops in counter.get_flop_counts()["Global"].items()}
    return counts["aten.mm"] + counts["aten.addmm"], counts["aten.convolution"]


@pytest.mark.parametrize("trained", [LORA, BOTH_LORA, UPPER_VIT, FULL], ids=["LoRA", "LoRA twice", "upper ViT", "full"])
def test_flops_are_those_that_torch_counts(trained: TrainablePart) -> None:
    """But for attention, of which torch counts whole squares, and the backward pass of grouped convolutions."""
    matrices, convolutions = counted_flops(trained, recomputed=0)
    footprint = Footprint(config(), trained, ADAPTERS)
    patches, width = 12 * (footprint.tower.patches - 1), config().vision_config.hidden_size
    embedding = 2 * patches * 3 * PATCH_PX**2 * width
    parts = footprint.flops(shape_of(12))
    trunk_attention = 4 * 12 * footprint.tower.patches**2 * width * {LORA: 4, UPPER_VIT: 2}.get(trained, 0)
    attention = parts.pop("ViT attention in them") + parts.pop("LLM attention")
    assert attention > 0
    assert sum(parts.values()) - trunk_attention == pytest.approx(matrices + 3 * (convolutions - embedding), rel=0.01)


@pytest.mark.parametrize("trained", [LORA, FULL], ids=["LoRA", "full"])
def test_recomputing_is_a_forward_pass_again(trained: TrainablePart) -> None:
    """Or a little less: a layer is left as soon as all that its backward pass needs is there."""
    again = sum(counted_flops(trained, 6)) - sum(counted_flops(trained, 0))
    footprint = Footprint(config(), trained, ADAPTERS)
    parts = footprint.flops(shape_of(12))
    attention = (parts["ViT attention in them"] + parts["LLM attention"]) / 3
    assert 0.99 < (footprint.recomputed_flops(shape_of(12), Recomputation.of_layers(6)) - attention) / again < 1.15


def test_tokens_of_a_prompt() -> None:
    assert prompt_tokens(config(), 40) == 40 * (TOKENS_PER_TILE + 2 + 38) + 110
    assert [frames_within(config(), prompt_tokens(config(), 40) - less) for less in (0, 1, 10**6)] == [40, 39, 1]
    assert prompt_tokens(config(), 40) - prompt_tokens(config(), 40, coordinates=False) == 40 * 30
