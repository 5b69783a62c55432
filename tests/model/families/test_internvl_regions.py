"""InternVL with region tokens: they begin as the visual tokens inside the box, and are learned beside the adapters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from internvl_chat.contracts import UserError
from internvl_chat.families import family_of
from internvl_chat.model.checkpoint import load_base
from internvl_chat.model.controls.region_tokens import KEY_ROLE, TRACK_ROLE
from internvl_chat.model.families.internvl.regions import mean_inside
from internvl_chat.model.loading import with_modules
from tests.helpers import IMAGE_TOKEN_ID, TILE_PX, TOKENS_PER_FRAME, randomise

FRAMES = 3
BOXES = torch.tensor([[0, 0, 500, 500], [100, 200, 900, 1000], [500, 0, 1000, 1000]])


def load(folder: Path, num_adapter_layers: int = 0):  # noqa: ANN201
    torch.manual_seed(0)
    return load_base(
        str(folder), num_adapter_layers=num_adapter_layers, dtype=torch.float32, modules=["region_tokens"]
    ).eval()


def ask(model: torch.nn.Module, boxes: torch.Tensor = BOXES, with_regions: bool = True) -> dict[str, object]:
    """A prompt that shows three frames; of the object's track all three, the second one as its key."""
    region_id = model.config.region_token_id
    slots = [9, region_id, 11, *[region_id] * 3] if with_regions else [9]
    ids = torch.tensor([[*[IMAGE_TOKEN_ID] * (TOKENS_PER_FRAME * FRAMES), *slots, 4]])
    pixels = torch.randn(FRAMES, 3, TILE_PX, TILE_PX, generator=torch.Generator().manual_seed(1))
    roles = torch.tensor([[TRACK_ROLE], [TRACK_ROLE | KEY_ROLE], [TRACK_ROLE]]) * with_regions
    vision = {"pixel_values": pixels, "boxes": boxes, "region_boxes": boxes[:, None], "region_roles": roles}
    vision["region_slots"] = torch.tensor([[4 * with_regions], [-1], [-1]])
    return {"input_ids": ids, "vision": vision}


def test_means_of_the_tokens_inside_a_box() -> None:
    """On a grid of 2 x 2: a quarter, two quarters, and nothing."""
    tokens = torch.randn(2, 4, 5, dtype=torch.float64)
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    means = mean_inside(tokens, boxes, torch.tensor([0, 1, 1]))
    # The middle of a box lies in the middle of its cells; samples beside it are drawn from the neighbours.
    inside = np.clip(np.array([1, 3, 5, 7]) / 8 - 0.5, 0, 1)
    across = inside.mean()
    expected = (1 - across) ** 2 * tokens[0, 0] + across * (1 - across) * (tokens[0, 1] + tokens[0, 2])
    torch.testing.assert_close(means[0], expected + across**2 * tokens[0, 3])
    assert not means[2].any()
    tokens.requires_grad_()
    assert torch.autograd.gradcheck(lambda t: mean_inside(t, boxes, torch.tensor([0, 1, 1])), (tokens,))


def test_they_begin_as_the_visual_tokens_inside_the_box(base_folder: Path) -> None:
    model = load(base_folder)
    asked = ask(model)
    with torch.no_grad():
        embedded, _ = model.model.embed_prompt(asked["input_ids"], asked["vision"])
        shown = model.model.get_image_features(asked["vision"]["pixel_values"]).pooler_output
    shown = torch.stack(list(shown)).view(FRAMES, TOKENS_PER_FRAME, -1)
    expected = mean_inside(shown, BOXES / 1000, torch.arange(FRAMES))
    torch.testing.assert_close(embedded[0, -6], expected[1])
    torch.testing.assert_close(embedded[0, -4:-1], expected)


@pytest.mark.parametrize("num_adapter_layers", [0, 2])
def test_the_box_decides_once_something_is_learned(num_adapter_layers: int, base_folder: Path) -> None:
    model = load(base_folder, num_adapter_layers)
    encoder = model.model.region_encoder
    assert not any(p.any() for p in encoder.out.parameters())
    randomise(encoder.out.parameters())
    with torch.no_grad():
        said = model(**ask(model)).logits
        moved = model(**ask(model, BOXES.flip(0))).logits
    assert (said - moved)[0, -1].abs().max() > 1e-3
    model.train()
    model(**ask(model)).logits.square().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_rows_without_regions_run_the_same_layers_in_training(base_folder: Path) -> None:
    model = load(base_folder)
    plain = ask(model, with_regions=False)
    with torch.no_grad():
        expected = model(**plain).logits
    model.train()
    given = {name: tensor for name, tensor in plain["vision"].items() if not name.startswith("region_")}
    logits = model(input_ids=plain["input_ids"], vision=given).logits
    torch.testing.assert_close(logits, expected)
    logits.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.model.region_encoder.parameters())


def test_slots_and_regions_must_match(base_folder: Path) -> None:
    model = load(base_folder)
    asked = ask(model)
    asked["vision"]["region_slots"][0] = 3
    with pytest.raises(ValueError, match="4 region slots in the text for 3 region tokens"):
        model(**asked)
    with pytest.raises(ValueError, match="4 region slots in the text for 0 region tokens"):
        model(input_ids=asked["input_ids"], vision={"pixel_values": asked["vision"]["pixel_values"]})


def test_the_encoder_is_kept_with_the_model(base_folder: Path, tmp_path: Path) -> None:
    model = load(base_folder)
    randomise(model.model.region_encoder.parameters())
    model.save_pretrained(tmp_path / "kept")
    again = load_base(str(tmp_path / "kept"), num_adapter_layers=0, dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(**ask(again)).logits, model(**ask(model)).logits)
    plain = load_base(str(base_folder), num_adapter_layers=0, dtype=torch.float32)
    assert plain.model.region_encoder is None
    assert plain.config.base_fingerprint == model.config.base_fingerprint


def test_a_family_without_a_place_for_them_says_so(base_folder: Path) -> None:
    config = load(base_folder).config
    with pytest.raises(UserError, match=f"--mirrors: {family_of(config).name} has no place for it"):
        with_modules(config, ["mirrors"])
