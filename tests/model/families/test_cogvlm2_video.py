"""CogVLM2-Video as a native model: the original's recorded numbers, and its layout there and back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from internvl_chat.constants import IGNORE_INDEX
from internvl_chat.contracts import UserError
from internvl_chat.families.clip_frames import frame_pixels
from internvl_chat.model.conversion.weight_files import LazyTensor, open_safetensors, open_weights
from internvl_chat.model.conversion.weight_map import WeightMap
from internvl_chat.model.families.cogvlm2_video import CogVLM2VideoForConditionalGeneration
from internvl_chat.model.families.cogvlm2_video.model import position_ids_of
from internvl_chat.model.families.cogvlm2_video.original import native_config, original_config, weight_map
from tests.cogvlm2 import tiny_config
from tests.helpers import shared

IMAGE_TOKEN = 7


@pytest.fixture(scope="module")
def model() -> CogVLM2VideoForConditionalGeneration:
    torch.manual_seed(3)
    return CogVLM2VideoForConditionalGeneration(tiny_config()).eval()


def prompt(frames: int, *text: int) -> list[int]:
    return [5, *[i for n in range(frames) for i in (*[IMAGE_TOKEN] * 6, 20 + n)], *text]


@dataclass(frozen=True)
class Recorded:
    """A shared case, its original checkpoint's tensors, and the native model made of them."""

    case: dict[str, torch.Tensor]
    fields: dict[str, Any]
    tensors: dict[str, LazyTensor]
    weights: WeightMap
    model: CogVLM2VideoForConditionalGeneration

    @property
    def pixels(self) -> torch.Tensor:
        return frame_pixels(self.case["video"].unbind(1), 224)


@pytest.fixture(scope="module", params=["cogvlm2_video_chat", "cogvlm2_video_base"])
def recorded(request: pytest.FixtureRequest) -> Recorded:
    folder = shared(f"parity/{request.param}")
    fields = json.loads((folder / "checkpoint" / "config.json").read_text())
    config = native_config(fields, Path("nowhere"))
    tensors, weights = open_weights(folder / "checkpoint"), weight_map(config)
    native = CogVLM2VideoForConditionalGeneration.from_pretrained(
        None, config=config, state_dict=weights.to_native(tensors), dtype=torch.float32
    )
    case = {name: tensor.read() for name, tensor in open_safetensors(folder / "case.safetensors").items()}
    return Recorded(case, fields, tensors, weights, native.eval())


def difference(computed: torch.Tensor, expected: torch.Tensor) -> float:
    assert computed.shape == expected.shape
    return (computed - expected).abs().max().item()


def test_frames_are_prepared_as_the_original_does(recorded: Recorded) -> None:
    pixels = recorded.pixels
    assert pixels.shape[1:] == (3, 224, 224)
    assert difference(pixels[..., :4, :4], recorded.case["expected_pixel_values_corner"]) < 1e-5


def test_the_language_model_gives_the_recorded_logits_behind_the_recorded_tokens(recorded: Recorded) -> None:
    case, native = recorded.case, recorded.model
    is_visual = case["input_ids"] == native.config.image_token_id
    assert torch.equal(is_visual, case["token_type_ids"].bool())
    embeds = native.get_input_embeddings()(case["input_ids"])
    embeds = embeds.masked_scatter(is_visual[..., None], case["expected_visual_tokens"])
    with torch.inference_mode():
        logits = native(inputs_embeds=embeds, position_ids=case["expected_position_ids"]).logits
    assert difference(logits, case["expected_logits"]) < 1e-5


def test_a_recorded_case_is_computed_from_its_video(recorded: Recorded) -> None:
    # In float64 the same layers differ from what was recorded in float32 by 1e-4 (tokens) and 6e-4 (logits).
    case, native = recorded.case, recorded.model
    vision = {"pixel_values": recorded.pixels}
    prompt_length = int((case["labels"][0] != IGNORE_INDEX).nonzero()[0])
    asked = case["input_ids"][:, :prompt_length]
    with torch.inference_mode():
        tokens = native.model.frame_tokens(vision["pixel_values"])
        _, positions = native.model.embed_prompt(case["input_ids"], vision)
        result = native(input_ids=case["input_ids"], vision=vision, labels=case["labels"])
        ids = native.generate(
            asked,
            vision=vision,
            attention_mask=torch.ones_like(asked),
            max_new_tokens=case["expected_greedy_ids"].shape[1],
            do_sample=False,
            eos_token_id=native.config.text_config.eos_token_id,
            pad_token_id=native.config.text_config.pad_token_id,
        )
    assert difference(tokens, case["expected_visual_tokens"]) < 1e-4
    assert torch.equal(positions, case["expected_position_ids"])
    assert difference(result.logits, case["expected_logits"]) < 1e-3
    assert difference(result.loss.reshape(1), case["expected_loss"]) < 1e-5
    assert torch.equal(ids[:, prompt_length:], case["expected_greedy_ids"])


def test_there_and_back_every_bit_is_kept(recorded: Recorded) -> None:
    native = recorded.weights.to_native(recorded.tensors)
    assert native.keys() == recorded.model.state_dict().keys()
    back = recorded.weights.to_original(native)
    assert back.keys() == recorded.tensors.keys()
    assert all(torch.equal(back[name].read(), tensor.read()) for name, tensor in recorded.tensors.items())
    assert original_config(recorded.model.config) == recorded.fields


def test_a_native_configuration_has_an_original_one() -> None:
    config = tiny_config()
    again = native_config(original_config(config), Path("nowhere"))
    for part in ("vision_config", "text_config"):
        one, other = (getattr(c, part).to_dict() for c in (config, again))
        assert {k: v for k, v in one.items() if k != "initializer_range"} == {
            k: v for k, v in other.items() if k != "initializer_range"
        }
    assert again.image_token_id == config.image_token_id


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda fields: fields.pop("vision_config"), "no vision_config"),
        (lambda fields: fields.pop("num_multi_query_heads"), "lacks num_multi_query_heads"),
        (lambda fields: fields["vision_config"].pop("num_heads"), "lacks vision_config.num_heads"),
        (lambda fields: fields.update(hidden_act="relu"), "hidden_act is 'relu'"),
        (lambda fields: fields["vision_config"].update(hidden_act="relu"), "hidden_act is 'relu'"),
    ],
)
def test_a_configuration_that_cannot_be_followed_is_told(change: Any, told: str) -> None:
    fields = original_config(tiny_config())
    change(fields)
    with pytest.raises(UserError, match=told):
        native_config(fields, Path("nowhere"))


def positions_one_by_one(is_visual: list[bool]) -> list[int]:
    """The rule as one would say it: of a run of visual tokens, those that are neither first nor last share a place."""
    positions: list[int] = []
    inside_before = False
    for number, visual in enumerate(is_visual):
        neighbours = is_visual[number - 1 : number + 2] if number else []
        inside = visual and len(neighbours) == 3 and all(neighbours)
        positions.append(0 if not positions else positions[-1] + (not (inside and inside_before)))
        inside_before = inside
    return positions


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_positions_follow_the_rule(is_visual: list[bool]) -> None:
    assert position_ids_of(torch.tensor([is_visual])).tolist() == [positions_one_by_one(is_visual)]


def test_padding_behind_a_prompt_changes_nothing(model: CogVLM2VideoForConditionalGeneration) -> None:
    torch.manual_seed(1)
    short, long = prompt(1, 30, 31), prompt(3, 32)
    pixels = torch.randn(4, 3, 20, 20)
    padded = torch.tensor([short + [6] * (len(long) - len(short)), long])
    mask = torch.tensor([[1] * len(short) + [0] * (len(long) - len(short)), [1] * len(long)])
    with torch.inference_mode():
        together = model(input_ids=padded, vision={"pixel_values": pixels}, attention_mask=mask).logits
        alone = model(input_ids=torch.tensor([short]), vision={"pixel_values": pixels[:1]}).logits
        other = model(input_ids=torch.tensor([long]), vision={"pixel_values": pixels[1:]}).logits
    assert difference(together[:1, : len(short)], alone) < 1e-5
    assert difference(together[1:], other) < 1e-5


def test_what_is_generated_is_what_whole_passes_say(model: CogVLM2VideoForConditionalGeneration) -> None:
    torch.manual_seed(2)
    ids, vision = torch.tensor([prompt(2, 33)]), {"pixel_values": torch.randn(2, 3, 20, 20)}
    with torch.inference_mode():
        generated = model.generate(
            ids,
            vision=vision,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=5,
            do_sample=False,
            eos_token_id=None,
        )
        for _ in range(5):
            newest = model(input_ids=ids, vision=vision).logits[:, -1:].argmax(-1)
            ids = torch.cat([ids, newest], dim=1)
    assert torch.equal(generated, ids)


def test_places_and_frames_must_be_as_many(model: CogVLM2VideoForConditionalGeneration) -> None:
    with pytest.raises(ValueError, match="12 places in the prompt for 18 tokens"):
        model(input_ids=torch.tensor([prompt(2)]), vision={"pixel_values": torch.zeros(3, 3, 20, 20)})


def test_text_alone_still_reaches_every_layer_in_training() -> None:
    torch.manual_seed(4)
    trained = CogVLM2VideoForConditionalGeneration(tiny_config())
    ids = torch.tensor([[5, 30, 31, 6]])
    trained(input_ids=ids, vision={"pixel_values": torch.zeros(1, 3, 20, 20)}, labels=ids).loss.backward()
    assert [name for name, p in trained.named_parameters() if p.grad is None] == []


def test_a_new_model_has_every_parameter_drawn(tmp_path: Path) -> None:
    config = tiny_config()
    drawn = CogVLM2VideoForConditionalGeneration(config)
    drawn.save_pretrained(tmp_path)
    loaded = CogVLM2VideoForConditionalGeneration.from_pretrained(tmp_path)
    for name in ("begin_of_frame", "end_of_frame"):
        assert getattr(drawn.model.multi_modal_projector, name).std() > 0.05
    assert drawn.model.vision_tower.pos_embed.std() > 0.05
    assert drawn.model.vision_tower.blocks[1].attn.k_proj.bias.abs().max() == 0
    kept = loaded.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in drawn.state_dict().items())
    assert loaded.config.tokens_per_frame == 6
