"""The captioner: equal to its base until its adapters have learned something, and then led by the boxes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, InternVLForConditionalGeneration

from internvl_chat.contracts import UserError
from internvl_chat.model.checkpoint import load_base
from internvl_chat.model.controls.box_adapter import BoxAdapter
from internvl_chat.model.families.internvl import (
    IntentVCNetConfig,
    IntentVCNetForConditionalGeneration,
    IntentVCNetModel,
    IntentVCNetVisionConfig,
)
from internvl_chat.vision import joined
from tests.helpers import VIT_LAYERS, VIT_WIDTH, randomise, tiny_base, tiny_config
from tests.model.inputs import ALL_ABSENT, BOXES, OTHER_BOXES, boxed, inputs_of, plain_inputs


def load(folder: Path, num_adapter_layers: int = 2, dtype: torch.dtype = torch.float32):  # noqa: ANN201
    torch.manual_seed(0)
    return load_base(str(folder), num_adapter_layers=num_adapter_layers, dtype=dtype).eval()


def adapters_of(model: torch.nn.Module) -> Iterator[BoxAdapter]:
    return (module for module in model.modules() if isinstance(module, BoxAdapter))


def out_layers(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [p for a in adapters_of(model) for layer in (a.attention_out, a.ffn_out) for p in layer.parameters()]


@torch.no_grad()
def logits_of(model: torch.nn.Module, boxes: torch.Tensor | None = None, **sizes: int) -> torch.Tensor:
    if boxes is None:
        return model(**plain_inputs(**sizes)).logits
    return model(**boxed(inputs_of(**sizes), boxes)).logits


@pytest.fixture
def trained(base_folder: Path) -> IntentVCNetForConditionalGeneration:
    """A captioner whose adapters add something."""
    model = load(base_folder)
    randomise(out_layers(model))
    return model


@pytest.mark.parametrize("num_adapter_layers", [0, 1, VIT_LAYERS])
def test_step_zero_is_the_base_bit_for_bit(num_adapter_layers: int, base_folder: Path) -> None:
    base = InternVLForConditionalGeneration.from_pretrained(base_folder, dtype=torch.float32).eval()
    model = load(base_folder, num_adapter_layers)
    assert len(list(adapters_of(model))) == num_adapter_layers
    assert torch.equal(logits_of(model, BOXES), logits_of(base))
    assert torch.equal(logits_of(model, ALL_ABSENT), logits_of(base))


def test_step_zero_is_the_base_at_another_tile_size(base_folder: Path) -> None:
    base = InternVLForConditionalGeneration.from_pretrained(base_folder, dtype=torch.float32).eval()
    sizes = {"tile_px": 60, "tokens_per_frame": 9}
    model = load(base_folder)
    assert torch.equal(logits_of(model, BOXES, **sizes), logits_of(base, **sizes))
    randomise(out_layers(model))
    assert not torch.equal(logits_of(model, BOXES, **sizes), logits_of(base, **sizes))


def test_adapters_that_a_base_lacks_are_initialised_by_from_pretrained(base_folder: Path) -> None:
    for adapter in adapters_of(load(base_folder)):
        fan_in = {"roi_conv": VIT_WIDTH * 9, "roi_proj": 2 * VIT_WIDTH, "ffn_depthwise": 9}
        for name, parameter in adapter.named_parameters():
            layer, kind = name.split(".")
            if "norm" in layer:
                assert (parameter == 1).all(), name
            elif kind == "bias" or layer in ("attention_out", "ffn_out"):
                assert (parameter == 0).all(), name
            else:
                std = fan_in.get(layer, VIT_WIDTH) ** -0.5
                assert float(parameter.detach().std()) == pytest.approx(std, rel=0.1), name
                assert float(parameter.detach().abs().max()) < 6 * std, name


def test_adapters_start_apart_from_each_other(base_folder: Path) -> None:
    first, second = adapters_of(load(base_folder))
    assert not torch.equal(first.query.weight, second.query.weight)


def test_adapters_are_initialised_in_bfloat16_too(base_folder: Path) -> None:
    model = load(base_folder, dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    inputs = inputs_of()
    inputs["vision"]["pixel_values"] = inputs["vision"]["pixel_values"].bfloat16()
    with torch.no_grad():
        assert torch.equal(model(**boxed(inputs, BOXES)).logits, model(**inputs).logits)
        randomise(out_layers(model))
        logits = model(**boxed(inputs, BOXES)).logits
    assert bool(logits.isfinite().all())
    assert float(next(adapters_of(model)).query.weight.detach().float().std()) == pytest.approx(
        VIT_WIDTH**-0.5, rel=0.1
    )


def test_without_boxes_it_stays_the_base(trained: IntentVCNetForConditionalGeneration, base_folder: Path) -> None:
    base = InternVLForConditionalGeneration.from_pretrained(base_folder, dtype=torch.float32).eval()
    assert torch.equal(logits_of(trained), logits_of(base))
    assert torch.equal(logits_of(trained, ALL_ABSENT), logits_of(base))


def test_boxes_change_what_it_says(trained: IntentVCNetForConditionalGeneration) -> None:
    plain, first, second = (logits_of(trained, boxes) for boxes in (None, BOXES, OTHER_BOXES))
    assert float((first - plain).abs().max()) > 1e-3
    assert float((first - second).abs().max()) > 1e-3


def test_a_box_changes_the_tokens_of_its_own_frame_only(trained: IntentVCNetForConditionalGeneration) -> None:
    tower, pixels = trained.model.vision_tower, inputs_of()["vision"]["pixel_values"]
    with torch.no_grad():
        plain, boxed = tower(pixels).last_hidden_state, tower(pixels, boxes=BOXES).last_hidden_state
    assert [torch.equal(a, b) for a, b in zip(plain, boxed, strict=True)] == [False, True, False]


def test_single_adapter_leaves_the_class_token(base_folder: Path) -> None:
    model = load(base_folder, num_adapter_layers=1)
    randomise(out_layers(model))
    tower, pixels = model.model.vision_tower, inputs_of()["vision"]["pixel_values"]
    with torch.no_grad():
        plain, boxed = tower(pixels).last_hidden_state, tower(pixels, boxes=BOXES).last_hidden_state
    assert torch.equal(plain[:, 0], boxed[:, 0])
    assert not torch.equal(plain[0, 1:], boxed[0, 1:])


def test_every_adapter_parameter_gets_a_gradient(base_folder: Path) -> None:
    """The outputs at step 0, all others from step 1 on; a key's bias shifts all scores alike and never gets one."""
    model = load(base_folder).train()
    inputs = inputs_of()
    parameters = {name: p for name, p in model.named_parameters() if ".box_adapters." in name}
    model.requires_grad_(False)
    for parameter in parameters.values():
        parameter.requires_grad_()
    optimizer = torch.optim.SGD(parameters.values(), lr=0.5)

    def with_gradient() -> set[str]:
        optimizer.zero_grad()
        model(**boxed(inputs, BOXES), labels=inputs["input_ids"]).loss.backward()
        return {n for n, p in parameters.items() if p.grad is not None and float(p.grad.abs().max()) > 1e-7}

    assert with_gradient() == {n for n in parameters if ".attention_out." in n or ".ffn_out." in n}
    optimizer.step()
    assert with_gradient() == {n for n in parameters if not n.endswith(".key.bias")}


def test_gradient_checkpointing_gives_the_same_gradients(base_folder: Path) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = load(base_folder).train()
        randomise(out_layers(model))
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            assert all(a.gradient_checkpointing for a in adapters_of(model))
        inputs = inputs_of()
        model(**boxed(inputs, BOXES), labels=inputs["input_ids"]).loss.backward()
        gradients.append(next(adapters_of(model)).query.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-8)


def test_saved_model_comes_back_through_the_auto_classes(
    trained: IntentVCNetForConditionalGeneration, tmp_path: Path
) -> None:
    trained.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, IntentVCNetConfig) and isinstance(config.vision_config, IntentVCNetVisionConfig)
    assert config.vision_config.num_adapter_layers == 2
    again = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert isinstance(again, IntentVCNetForConditionalGeneration)
    assert torch.equal(logits_of(again, BOXES), logits_of(trained, BOXES))
    headless = AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert isinstance(headless, IntentVCNetModel)
    with torch.no_grad():
        inputs = boxed(inputs_of(), BOXES)
        embeds, position_ids = headless.embed_prompt(inputs["input_ids"], inputs["vision"])
        assert position_ids is None
        hidden = headless.language_model(inputs_embeds=embeds).last_hidden_state
        assert torch.equal(trained.lm_head(hidden), logits_of(trained, BOXES))


def test_greedy_generation_follows_the_logits(trained: IntentVCNetForConditionalGeneration) -> None:
    inputs = inputs_of()
    generated = trained.generate(**boxed(inputs, BOXES), max_new_tokens=4, do_sample=False, pad_token_id=0)
    ids = inputs["input_ids"]
    assert torch.equal(generated[:, : ids.shape[1]], ids)
    generated = generated[:, ids.shape[1] :]
    for step in range(generated.shape[1]):
        mask = torch.ones_like(ids)
        with torch.no_grad():
            logits = trained(**boxed({**inputs, "input_ids": ids, "attention_mask": mask}, BOXES)).logits
        assert int(logits[0, -1].argmax()) == int(generated[0, step])
        ids = torch.cat([ids, generated[:, step : step + 1]], dim=1)


def test_generation_takes_logits_of_the_last_position_alone(trained: IntentVCNetForConditionalGeneration) -> None:
    positions = []
    trained.lm_head.register_forward_hook(lambda _head, inputs, _logits: positions.append(inputs[0].shape[1]))
    trained.generate(**boxed(inputs_of(), BOXES), max_new_tokens=3, min_new_tokens=3, do_sample=False, pad_token_id=0)
    assert positions == [1, 1, 1]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_batch_is_answered_as_each_of_its_samples_alone(
    num_beams: int, trained: IntentVCNetForConditionalGeneration
) -> None:
    samples = [inputs_of(seed=1), inputs_of(num_frames=2, seed=4)]
    boxes = [BOXES, OTHER_BOXES[:2]]
    settings = {"num_beams": num_beams, "max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    lengths = [s["input_ids"].shape[1] for s in samples]
    alone = [
        trained.generate(**boxed(s, b), **settings)[0, length:].tolist()
        for s, b, length in zip(samples, boxes, lengths, strict=True)
    ]
    longest = max(lengths)

    def padded(name: str) -> torch.Tensor:
        return torch.cat([torch.nn.functional.pad(s[name], (longest - s[name].shape[1], 0)) for s in samples])

    together = trained.generate(
        input_ids=padded("input_ids"),
        attention_mask=padded("attention_mask"),
        vision=joined(boxed(s, b)["vision"] for s, b in zip(samples, boxes, strict=True)),
        **settings,
    )[:, longest:].tolist()
    assert [row[: len(a)] for row, a in zip(together, alone, strict=True)] == alone
    assert alone[0] != alone[1]


def test_frames_and_their_places_must_be_as_many(trained: IntentVCNetForConditionalGeneration) -> None:
    inputs = inputs_of()
    with pytest.raises(ValueError, match="[Ii]mage"):
        trained(**{**inputs, "vision": {"pixel_values": inputs["vision"]["pixel_values"][:2], "boxes": BOXES[:2]}})


def test_frames_and_boxes_must_be_as_many(trained: IntentVCNetForConditionalGeneration) -> None:
    with pytest.raises(ValueError, match="box a frame"):
        trained(**boxed(inputs_of(), BOXES[:2]))


@pytest.mark.parametrize("num_adapter_layers", [-1, VIT_LAYERS + 1])
def test_more_adapters_than_layers_are_refused(num_adapter_layers: int) -> None:
    with pytest.raises(ValueError, match=f"num_adapter_layers.*0 to {VIT_LAYERS}"):
        IntentVCNetConfig.from_base(tiny_config(), num_adapter_layers)


def test_adapters_need_the_last_layers_output() -> None:
    with pytest.raises(ValueError, match="vision_feature_layer"):
        IntentVCNetConfig.from_base(tiny_config(vision_feature_layer=-2), 1)


def test_config_of_the_base_is_kept_but_for_the_adapters() -> None:
    base = tiny_config()
    config = IntentVCNetConfig.from_base(base, 2)
    ours, theirs = config.to_dict(), base.to_dict()
    assert ours["text_config"] == theirs["text_config"]
    ignored = {"model_type", "num_adapter_layers", "adapter_norm"}
    assert {k: v for k, v in ours["vision_config"].items() if k not in ignored} == {
        k: v for k, v in theirs["vision_config"].items() if k not in ignored
    }
    assert (config.image_token_id, config.downsample_ratio) == (base.image_token_id, base.downsample_ratio)


def test_a_full_model_keeps_or_refuses_another_number_of_adapters(
    trained: IntentVCNetForConditionalGeneration, tmp_path: Path
) -> None:
    """What is asked for must not be dropped silently."""
    trained.save_pretrained(tmp_path)
    try:
        model = load(tmp_path, num_adapter_layers=1)
    except UserError:
        return
    assert len(list(adapters_of(model))) == 1


def test_a_vit_with_other_norms_and_without_bias_works(tmp_path: Path) -> None:
    """The 6B ViT: RMSNorm, queries and keys normalised, no bias."""
    vision = {"norm_type": "rms_norm", "use_qk_norm": True, "attention_bias": False}
    base = tiny_base(vision=vision)
    base.save_pretrained(tmp_path)
    model = load(tmp_path)
    assert torch.equal(logits_of(model, BOXES), logits_of(base))
    randomise(out_layers(model))
    assert not torch.equal(logits_of(model, BOXES), logits_of(base))
