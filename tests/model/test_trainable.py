"""Which parameters are trained."""

from __future__ import annotations

import re

import pytest
import torch
from peft import LoraConfig, get_peft_model

from internvl_chat.model.families.internvl import IntentVCNetConfig, IntentVCNetForConditionalGeneration
from internvl_chat.model.part_names import USUAL_NAMES
from internvl_chat.model.trainable import (
    LORA_TARGETS,
    TrainablePart,
    lora_target_pattern,
    unfrozen_layers,
)
from tests.helpers import VIT_LAYERS, tiny_config


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
        (TrainablePart(0, True, True, False, use_backbone_lora=3), {"lora_", "box_adapters"}),
        (TrainablePart(4, True, True, True, unfreeze_lm_head=True), {"lora_", "box_adapters", "lm_head"}),
        (TrainablePart(0, True, True, True, unfrozen_vit_layers=range(2, 3)), {"box_adapters", "vision_tower"}),
    ],
    ids=["script", "all frozen", "no lora", "full llm", "full vit", "vit lora", "lm head", "last vit layer"],
)
def test_flags_choose_the_parts_that_train(part: TrainablePart, rooms: set[str]) -> None:
    model: torch.nn.Module = tiny_captioner()
    lora = part.lora_config("qwen2")
    if lora is not None:
        model = get_peft_model(model, lora)
    part.mark(model)
    assert rooms_of(model) == rooms


@pytest.mark.parametrize(("llm", "vit"), [(4, 0), (0, 3), (4, 3), (3, 3)])
def test_each_part_has_lora_of_its_own_rank_and_alpha_is_twice_that(llm: int, vit: int) -> None:
    part = TrainablePart(llm, True, True, True, use_backbone_lora=vit)
    lora = part.lora_config("qwen2")
    assert lora is not None
    ranks: dict[str, set[int]] = {}
    for name, module in get_peft_model(tiny_captioner(), lora).named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "scaling"):
            room = "vit" if ".vision_tower.encoder.layer." in name else "llm"
            assert room == "vit" or ".language_model.layers." in name, name
            ranks.setdefault(room, set()).add(module.lora_A["default"].weight.shape[0])
            assert module.scaling == {"default": 2.0}, name
    assert ranks == {room: {rank} for room, rank in (("llm", llm), ("vit", vit)) if rank}


def test_lora_on_the_vit_wraps_every_projection_of_every_layer() -> None:
    lora = TrainablePart(0, True, True, True, use_backbone_lora=2).lora_config("qwen2")
    assert lora is not None
    names = [name for name, _ in get_peft_model(tiny_captioner(), lora).named_parameters() if ".lora_A." in name]
    assert len(names) == VIT_LAYERS * len(USUAL_NAMES.tower_lora)
    assert {name.split(".lora_A")[0].rsplit(".", 1)[1] for name in names} == set(USUAL_NAMES.tower_lora)


@pytest.mark.parametrize(("first", "expected"), [(0, []), (-2, [3, 4]), (3, [3, 4]), (-5, [0, 1, 2, 3, 4])])
def test_unfrozen_layers_are_counted_from_either_end(first: int, expected: list[int]) -> None:
    assert list(unfrozen_layers(first, 5)) == expected


@pytest.mark.parametrize("first", [5, -6])
def test_layers_beyond_the_last_are_refused(first: int) -> None:
    with pytest.raises(ValueError, match=f"{first}: expected -5 to 4"):
        unfrozen_layers(first, 5)


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
