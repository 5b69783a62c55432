"""Which parameters are trained."""

from __future__ import annotations

import re

import pytest
import torch
from peft import LoraConfig, get_peft_model

from internvl_chat.model import IntentVCNetConfig, IntentVCNetForConditionalGeneration
from internvl_chat.model.trainable import LORA_TARGETS, TrainablePart, lora_target_pattern
from tests.helpers import tiny_config


def tiny_captioner() -> IntentVCNetForConditionalGeneration:
    return IntentVCNetForConditionalGeneration(IntentVCNetConfig.from_base(tiny_config(), 2))


def rooms_of(model: torch.nn.Module) -> set[str]:
    """Parts of the model that have parameters with `requires_grad`."""
    rooms = set()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found = re.search(r"lora_|box_adapters|multi_modal_projector|vision_tower|language_model|lm_head", name)
            assert found, name
            part = "lora_" if "lora_" in name else "box_adapters" if "box_adapters" in name else found.group()
            rooms.add(part)
    return rooms


@pytest.mark.parametrize(
    ("part", "rooms"),
    [
        (TrainablePart(4, False, False, True), {"lora_", "box_adapters", "multi_modal_projector"}),
        (TrainablePart(4, True, True, True), {"lora_", "box_adapters"}),
        (TrainablePart(0, True, False, True), {"box_adapters", "multi_modal_projector"}),
        (TrainablePart(0, False, True, True), {"box_adapters", "language_model", "lm_head"}),
        (TrainablePart(0, True, True, False), {"box_adapters", "vision_tower"}),
    ],
    ids=["the script", "all frozen", "no lora", "full llm", "full vit"],
)
def test_flags_choose_the_parts_that_train(part: TrainablePart, rooms: set[str]) -> None:
    model: torch.nn.Module = tiny_captioner()
    if part.use_llm_lora:
        config = LoraConfig(r=part.use_llm_lora, target_modules=lora_target_pattern("qwen2"))
        model = get_peft_model(model, config)
    part.mark(model)
    assert rooms_of(model) == rooms


def test_what_is_marked_is_what_is_saved() -> None:
    model, part = tiny_captioner(), TrainablePart(0, True, False, True)
    part.mark(model)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {n for n in model.state_dict() if n in part}


def test_lora_wraps_every_projection_of_the_language_model_and_nothing_else() -> None:
    model = get_peft_model(tiny_captioner(), LoraConfig(r=2, target_modules=lora_target_pattern("qwen2")))
    wrapped = {name.split(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A." in name}
    assert all(".language_model.layers." in name for name in wrapped)
    assert {name.rsplit(".", 1)[1] for name in wrapped} == set(LORA_TARGETS["qwen2"])
    assert len(wrapped) == 2 * 7


@pytest.mark.parametrize("kind", ["phi3", "llama"])
def test_lora_fits_the_other_language_models(kind: str) -> None:
    model = IntentVCNetForConditionalGeneration(
        IntentVCNetConfig.from_base(tiny_config(text={"model_type": kind, "rope_scaling": None}), 1)
    )
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=lora_target_pattern(kind)))
    names = {name.split(".lora_A")[0] for name, _ in wrapped.named_parameters() if ".lora_A." in name}
    assert len(names) == 2 * len(LORA_TARGETS[kind])
    assert all(".language_model." in name for name in names)


def test_an_unknown_language_model_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'mamba'.*qwen2"):
        lora_target_pattern("mamba")
