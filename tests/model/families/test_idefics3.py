"""Idefics3's captioner: what transformers' own model computes, packed rows, shared prompts, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Idefics3ForConditionalGeneration, PreTrainedModel

from internvl_chat.contracts import SharedPrefix, UserError
from internvl_chat.data.families import idefics3
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.inference.decoding import Decoding
from internvl_chat.inference.ensemble import Ensemble
from internvl_chat.inference.generation import Captioners
from internvl_chat.inference.requests import EncodedClip, ViewedClip, ViewedPrompt
from internvl_chat.model.checkpoint import load_base, load_captioner
from internvl_chat.model.loading import load_config
from internvl_chat.model.memory.recomputation import Recomputation, recompute
from internvl_chat.model.shared_prefix import use_shared_prefix_attention
from internvl_chat.model.stochastic_depth import use_stochastic_depth
from internvl_chat.train.arguments import ModelArguments
from internvl_chat.train.build import trainable_part
from tests.tiny_idefics3 import TILE_PX, TOKENS, write_tiny

TILES = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("idefics3") / "base")


@pytest.fixture
def model(folder: Path) -> Any:
    return load_captioner(folder, dtype=torch.float32)


def prompt_of(
    model: PreTrainedModel, seed: int = 0, tiles: int = TILES
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(20, 200, (12 + seed,), generator=generator)
    places = torch.full((tiles * TOKENS,), model.config.image_token_id)
    pixels = torch.randn(tiles, 3, TILE_PX, TILE_PX, generator=generator)
    return torch.cat([words[:4], places, words[4:]])[None], {"pixel_values": pixels} if tiles else {}


@torch.no_grad()
def test_logits_are_those_of_transformers(model: Any, folder: Path) -> None:
    native = Idefics3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    ids, vision = prompt_of(model)
    expected = native(input_ids=ids, pixel_values=vision["pixel_values"][None], labels=ids)
    ours = model(input_ids=ids, vision=vision, labels=ids)
    assert torch.equal(ours.logits, expected.logits) and torch.equal(ours.loss, expected.loss)
    greedy = {"max_new_tokens": 6, "do_sample": False}
    assert torch.equal(
        model.generate(ids, vision=vision, **greedy),
        native.generate(input_ids=ids, pixel_values=vision["pixel_values"][None], **greedy),
    )


def packed(model: PreTrainedModel, answers: tuple[int, ...]) -> dict[str, Any]:
    """One prompt and answers of these lengths, whose tokens are all supervised."""
    ids, vision = prompt_of(model, seed=2)
    length, generator = ids.shape[1], torch.Generator().manual_seed(7)
    added = [torch.randint(20, 200, (count,), generator=generator) for count in answers]
    starts = [sum(answers[:number]) + length for number in range(len(answers))]
    before = [[length - 1, *range(start, start + count - 1)] for start, count in zip(starts, answers, strict=True)]
    positions = [torch.arange(length), *(torch.arange(count) + length for count in answers)]
    return {
        "input_ids": torch.cat([ids[0], *added])[None],
        "vision": vision,
        "position_ids": torch.cat(positions)[None],
        "layout": (SharedPrefix(length, answers),),
        "target_positions": torch.tensor([place for places in before for place in places])[None],
        "target_ids": torch.cat(added)[None],
        "loss_weights": torch.ones(1, sum(answers)),
    }


@pytest.mark.parametrize("recomputed", [0, 1])
def test_answers_that_share_a_prompt_have_the_gradients_of_each_alone(folder: Path, recomputed: int) -> None:
    model: Any = load_base(str(folder), num_adapter_layers=0, dtype=torch.float32)
    use_shared_prefix_attention(model)
    recompute(model, Recomputation.of_layers(recomputed))
    model.train()
    row = packed(model, (5, 2, 7))
    loss = model(**row, num_items_in_batch=14).loss
    loss.backward()
    together = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    length, start, total = row["layout"][0].prompt_length, 0, 0.0
    for count in (5, 2, 7):
        answer = row["target_ids"][:, start : start + count]
        ids = torch.cat([row["input_ids"][:, :length], answer], dim=1)
        labels = torch.cat([torch.full((1, length), -100), answer], dim=1)
        alone = model(input_ids=ids, vision=row["vision"], labels=labels, num_items_in_batch=14).loss
        alone.backward()
        total += float(alone.detach())
        start += count
    assert float(loss.detach()) == pytest.approx(total, rel=1e-6)
    scale = max(float(gradient.abs().max()) for gradient in together.values())
    for name, parameter in model.named_parameters():
        size = max(float(parameter.grad.abs().max()), 1e-3 * scale)
        assert float((parameter.grad - together[name]).abs().max()) / size < 1e-4, name


def test_a_row_of_text_alone_gives_every_trained_layer_a_gradient(folder: Path) -> None:
    model: Any = load_base(str(folder), num_adapter_layers=0, dtype=torch.float32).train()
    use_shared_prefix_attention(model)
    blank = idefics3.blank(PromptConfig.of("idefics3", TILE_PX, TOKENS))
    row = packed(model, (3, 4))
    ids = torch.where(row["input_ids"] == model.config.image_token_id, 30, row["input_ids"])
    model(**{**row, "input_ids": ids, "vision": blank}).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert not any(p.grad.any() for name, p in model.named_parameters() if ".vision_model." in name)


class NumbersAsText:
    """What is needed of a tokenizer: ids as they are."""

    pad_token_id = 0

    def batch_decode(self, ids: torch.Tensor, **_: object) -> list[str]:
        return [" ".join(map(str, row)) for row in ids.tolist()]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_shared_prompts_are_answered_as_each_alone(num_beams: int, model: Any, folder: Path) -> None:
    """Two clips, one of them asked about twice, and a text alone."""
    end, settings = 5, {"max_new_tokens": 7, "num_beams": num_beams, "do_sample": False, "pad_token_id": 0}
    plain = load_captioner(folder, dtype=torch.float32)
    clips, alone = [], []
    for number, tiles in enumerate((3, 2, 0)):
        ids, vision = prompt_of(model, seed=number, tiles=tiles)
        other = torch.cat([ids[:, :-3], ids[:, -3:] + 7], dim=1)
        asked = [ids, other] if number == 0 else [ids]
        prompts = tuple(ViewedPrompt(one[0].tolist(), {}) for one in asked)
        names = tuple(f"{number} {ask}" for ask in range(len(asked)))
        clips.append(EncodedClip(names, (ViewedClip(vision, prompts),)))
        for one in asked:
            out = plain.generate(one, vision=vision, eos_token_id=end, **settings)
            alone += NumbersAsText().batch_decode(out[:, one.shape[1] :])
    decoding = Decoding(num_beams=num_beams, max_new_tokens=7)
    tokenizer: Any = NumbersAsText()
    together = Captioners(Ensemble([model]), [0], tokenizer, [end], decoding)(clips)
    assert [texts[0].split(f" {end}")[0] for texts in together] == [text.split(f" {end}")[0] for text in alone]
    assert len(set(alone)) == len(alone)


def test_parts_are_told_by_their_names(folder: Path) -> None:
    config = load_config(folder)
    part = trainable_part(
        ModelArguments(str(folder), use_llm_lora=3, freeze_backbone=True, unfreeze_vit_layers=-1), config
    )
    assert "model.connector.modality_projection.proj.weight" in part
    assert "model.vision_model.encoder.layers.2.mlp.fc1.weight" in part
    assert "model.vision_model.encoder.layers.1.mlp.fc1.weight" not in part
    assert "model.text_model.layers.0.mlp.up_proj.weight" not in part
    assert "base_model.model.model.text_model.layers.0.mlp.up_proj.lora_A.default.weight" in part


def test_what_the_family_cannot_do_is_refused(folder: Path, model: Any) -> None:
    with pytest.raises(UserError, match="no place for box adapters; give --num_adapter_layers 0"):
        load_base(str(folder), num_adapter_layers=2, dtype=torch.float32)
    with pytest.raises(UserError, match=f"--force_image_size 448: this model sees tiles of {TILE_PX} pixels"):
        load_base(str(folder), num_adapter_layers=0, dtype=torch.float32, image_size_px=448)
    with pytest.raises(UserError, match="--drop_path_rate 0.1: this model's ViT has no place for it"):
        use_stochastic_depth(model, 0.1)
