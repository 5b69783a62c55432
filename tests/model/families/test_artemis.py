"""Artemis: equal to the original on recorded results, and what its slots and its track's regions do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, LlamaConfig

from internvl_chat.__main__ import main
from internvl_chat.contracts import UserError
from internvl_chat.model.controls.region_tokens import KEY_ROLE, TRACK_ROLE
from internvl_chat.model.families.artemis.configuration import ArtemisConfig
from internvl_chat.model.families.artemis.model import ArtemisForConditionalGeneration, pooled_video
from internvl_chat.model.families.artemis.recorded import EXPECTED, check_recorded
from tests.helpers import shared

# Sizes of the tiny model; no two alike.
SIDE_PX, PATCH_PX, VOCABULARY, TOWER_WIDTH, LLM_WIDTH = 20, 10, 37, 8, 12
NUM_PATCHES = (SIDE_PX // PATCH_PX) ** 2
TOLERANCE = 1e-4


def tiny_artemis(**changes: object) -> ArtemisForConditionalGeneration:
    """A few thousand weights, drawn widely enough for what is shown to matter."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=TOWER_WIDTH,
        intermediate_size=18,
        num_hidden_layers=5,
        num_attention_heads=2,
        image_size=SIDE_PX,
        patch_size=PATCH_PX,
        initializer_range=0.2,
    )
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=LLM_WIDTH,
        intermediate_size=22,
        num_hidden_layers=2,
        num_attention_heads=3,
        initializer_range=0.3,
    )
    regions = {
        "region_layers": (-5, -3, -2),
        "region_scales": (3, 2, 1),
        "region_width": 14,
        "region_cells": 4,
        "region_fusions": 2,
        "region_groups": 4,
    }
    config = ArtemisConfig(vision_config=vision, text_config=text, **{**regions, **changes})
    return ArtemisForConditionalGeneration(config).eval()


def pictures_of(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(seed))


def boxes_of(count: int) -> torch.Tensor:
    corners = torch.rand(count, 4, generator=torch.Generator().manual_seed(2)) / 2
    return corners + torch.tensor([0, 0, 0.5, 0.5])


def regions_of(tiles: torch.Tensor, boxes: torch.Tensor, *objects: tuple[int, int]) -> dict[str, torch.Tensor]:
    """The tensors of one sample, a box in shares a tile; of each object so many tiles, its key first, and its slots."""
    objects = objects or ((len(tiles), len(tiles)),)
    given = torch.zeros(len(tiles), len(objects), 4)
    roles = torch.zeros(len(tiles), len(objects), dtype=torch.long)
    start = 0
    for number, (count, _) in enumerate(objects):
        given[start : start + count, number] = 1000 * boxes[start : start + count]
        roles[start : start + count, number] = torch.tensor([KEY_ROLE, *[TRACK_ROLE] * (count - 1)])
        start += count
    slots = torch.full_like(roles, -1)
    slots[0] = torch.tensor([num_slots for _, num_slots in objects])
    return {"pixel_values": tiles, "region_boxes": given, "region_roles": roles, "region_slots": slots}


def prompt_of(config: ArtemisConfig, *slots: tuple[int, int]) -> torch.Tensor:
    """Token 3, then `count` slots of an id and token 5 each."""
    ids = [3]
    for slot_id, count in slots:
        ids += [slot_id] * count + [5]
    return torch.tensor([ids])


def test_recorded_results_of_the_original(capsys: pytest.CaptureFixture[str]) -> None:
    folder = shared("parity/artemis_regions5")
    assert main(["verify", "--case", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in EXPECTED)


def test_a_difference_from_the_original_is_found(tmp_path: Path) -> None:
    folder = shared("parity/artemis_regions5")
    shutil.copyfile(folder / "model.json", tmp_path / "model.json")
    case = load_file(folder / "case.safetensors")
    case["boxes"][0, 0] += 0.01
    save_file(case, tmp_path / "case.safetensors")
    differences = check_recorded(tmp_path)
    assert differences["level_features"] < TOLERANCE < min(differences["region_features"], differences["logits"])
    save_file(case | {"boxes": case["boxes"][:4].contiguous()}, tmp_path / "case.safetensors")
    with pytest.raises(UserError, match="5 region slots, 4 boxes, 5 images: expected as many"):
        check_recorded(tmp_path)
    save_file(case, tmp_path / "case.safetensors")
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(UserError, match="model.json: expected 'llama' and 'clip'"):
        check_recorded(tmp_path)


def test_a_video_is_its_frames_means_then_its_patches_means() -> None:
    patches = torch.randn(7, NUM_PATCHES, TOWER_WIDTH, dtype=torch.float64)
    pooled = pooled_video(patches)
    assert pooled.shape == (100 + NUM_PATCHES, TOWER_WIDTH)
    for frame in range(7):
        expected = [sum(patches[frame, :, c].tolist()) / NUM_PATCHES for c in range(TOWER_WIDTH)]
        assert pooled[frame].tolist() == pytest.approx(expected)
    assert not pooled[7:100].any()
    for patch in range(NUM_PATCHES):
        assert pooled[100 + patch].tolist() == pytest.approx(patches[:, patch].mean(0).tolist())
    assert torch.autograd.gradcheck(pooled_video, (patches.requires_grad_(),), fast_mode=True)


@pytest.mark.parametrize("count", [0, 101])
def test_a_video_without_frames_or_with_too_many_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} frames: expected 1 to 100"):
        pooled_video(torch.zeros(count, 1, 2))


def test_each_slot_gets_its_own_tokens() -> None:
    model = tiny_artemis()
    inner, config = model.model, model.config
    pictures, images = pictures_of(3), pictures_of(2, seed=4)
    with torch.no_grad():
        features = pooled_video(inner.patch_features(pictures_of(6, seed=5)))
    prompt = prompt_of(
        config,
        (config.image_token_id, 2 * NUM_PATCHES),
        (config.video_token_id, config.video_seq_length),
        (config.region_token_id, 3),
    )
    # The last two tiles are pictures of their own, and no object's.
    vision = regions_of(torch.cat([pictures, images]), boxes_of(5), (3, 3))
    vision |= {"video_features": features, "shown": torch.tensor([0, 0, 0, 1, 1])}
    with torch.no_grad():
        embedded, positions = inner.embed_prompt(prompt, vision)
        regions = inner.region_tokens(regions_of(pictures, boxes_of(5)[:3]))
        text = inner.get_input_embeddings()(torch.tensor([3, 5]))
        shown = inner.get_image_features(images).pooler_output
    assert positions is None
    torch.testing.assert_close(embedded[0, -4:-1], regions)
    torch.testing.assert_close(embedded[0, 1 : 1 + NUM_PATCHES], shown[0])
    torch.testing.assert_close(embedded[0, [0, -1]], text)
    torch.testing.assert_close(
        embedded[0, 2 + 2 * NUM_PATCHES : -5], inner.multi_modal_projector(features), rtol=0, atol=0
    )


def test_a_track_with_more_pictures_than_slots_is_clustered() -> None:
    """Pictures come in two kinds behind the key; two slots behind it show one of each, in time order."""
    model = tiny_artemis().model
    kinds, boxes = pictures_of(2, seed=6), boxes_of(1).expand(6, 4)
    pictures = torch.cat([pictures_of(1), kinds[[0, 1, 1, 0, 1]]])
    with torch.no_grad():
        every = model.region_tokens(regions_of(pictures, boxes))
        chosen = model.region_tokens(regions_of(pictures, boxes, (6, 3)))
        torch.testing.assert_close(chosen, every[[0, 1, 2]])
        padded = model.region_tokens(regions_of(pictures[:2], boxes[:2], (2, 4)))
        torch.testing.assert_close(padded, every[[0, 1, 1, 1]])
        two_objects = model.region_tokens(regions_of(pictures, boxes, (2, 2), (4, 1)))
        torch.testing.assert_close(two_objects, every[[0, 1, 2]])


def test_frames_are_pooled_video_by_video() -> None:
    model = tiny_artemis().model
    frames = pictures_of(5, seed=8)
    with torch.no_grad():
        read = model.video_tokens({"video_frames": frames, "video_starts": torch.tensor([1, 0, 0, 1, 0])})
        videos = [pooled_video(model.patch_features(part)) for part in frames.split([3, 2])]
        given = model.video_tokens({"video_features": torch.cat(videos)})
    torch.testing.assert_close(read, given)


def test_every_weight_of_the_region_encoder_gets_a_gradient() -> None:
    model = tiny_artemis()
    prompt = prompt_of(model.config, (model.config.region_token_id, 3))
    vision = regions_of(pictures_of(3), boxes_of(3))
    model(input_ids=prompt, vision=vision, labels=prompt.clamp(max=VOCABULARY - 1)).loss.backward()
    without = [n for n, p in model.model.region_encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_region_weights_are_drawn_by_their_fan_in(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Also where a checkpoint lacks them: stages 1 and 2 have no region encoder."""
    folder = tmp_path_factory.mktemp("stage2")
    model = tiny_artemis()
    kept = {name: tensor for name, tensor in model.state_dict().items() if ".region_encoder." not in name}
    model.save_pretrained(folder, state_dict=kept)
    loaded = ArtemisForConditionalGeneration.from_pretrained(folder)
    encoder = loaded.model.region_encoder
    expected_std = (TOWER_WIDTH * 4 * 4) ** -0.5
    assert encoder.roi_proj.weight.std().item() == pytest.approx(expected_std, rel=0.1)
    assert not encoder.roi_proj.bias.any() and (encoder.fusions[0].norm.weight == 1).all()
    torch.testing.assert_close(loaded.lm_head.weight, model.lm_head.weight)


def test_bf16_answers_as_fp32_within_three_percent() -> None:
    half = tiny_artemis().bfloat16()
    full = tiny_artemis()
    full.load_state_dict({name: tensor.float() for name, tensor in half.state_dict().items()})
    prompt = prompt_of(full.config, (full.config.region_token_id, 4))
    tiles = pictures_of(4).bfloat16()
    with torch.no_grad():
        low = half(input_ids=prompt, vision=regions_of(tiles, boxes_of(4))).logits.float()
        high = full(input_ids=prompt, vision=regions_of(tiles.float(), boxes_of(4))).logits
    assert (low - high).norm() / high.norm() < 0.03


@pytest.mark.parametrize(
    ("slots", "message"), [(2, "2 region slots in the text for 3 region tokens"), (0, "0 region slots")]
)
def test_slots_and_regions_must_match(slots: int, message: str) -> None:
    model = tiny_artemis()
    prompt = prompt_of(model.config, (model.config.region_token_id, slots))
    vision = regions_of(pictures_of(3), boxes_of(3))
    with pytest.raises(ValueError, match=message):
        model(input_ids=prompt, vision=vision)


def test_slots_that_nothing_fills_are_an_error() -> None:
    model = tiny_artemis()
    prompt = prompt_of(model.config, (model.config.video_token_id, 3))
    with pytest.raises(ValueError, match="slots that nothing was given for"):
        model(input_ids=prompt, vision={})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"region_layers": (-5, -2)}, "expected as many of both"),
        ({"region_layers": (-7, -3, -2)}, "the tower has 6 hidden states"),
    ],
)
def test_levels_that_cannot_be_read_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_artemis(**changes)
