"""Stochastic depth: a twin that skips branches by hand, nothing of it outside training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from internvl_chat.contracts import UserError
from internvl_chat.model.checkpoint import load_base
from internvl_chat.model.families.internvl import IntentVCNetForConditionalGeneration
from internvl_chat.model.stochastic_depth import use_stochastic_depth
from internvl_chat.train.finetune_w_bboxes_ml import parse_arguments
from tests.helpers import TILE_PX, VIT_LAYERS

RATE, FRAMES = 0.6, 7


def captioner(folder: Path, rate: float) -> IntentVCNetForConditionalGeneration:
    model = load_base(str(folder), num_adapter_layers=0, dtype=torch.float32).eval()
    use_stochastic_depth(model, rate)
    return model


def frames() -> torch.Tensor:
    return torch.randn(FRAMES, 3, TILE_PX, TILE_PX, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def skipped_by_hand(tower: torch.nn.Module, pixels: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The tower's output, and how many of the frames' branches were skipped."""
    hidden, num_skipped = tower.embeddings(pixels), 0

    def kept(branch: torch.Tensor, share: float) -> torch.Tensor:
        nonlocal num_skipped
        if not share:
            return branch
        rows = torch.empty(FRAMES, 1, 1).bernoulli_(1 - share)
        num_skipped += int((rows == 0).sum())
        return torch.stack([row * branch[number] / (1 - share) for number, row in enumerate(rows)])

    for number, layer in enumerate(tower.encoder.layer):
        share = RATE * number / (VIT_LAYERS - 1)
        attended = layer.lambda_1 * layer.attention.eval()(layer.layernorm_before(hidden))[0]
        hidden = hidden + kept(attended, share)
        hidden = hidden + kept(layer.lambda_2 * layer.mlp(layer.layernorm_after(hidden)), share)
    return tower.layernorm(hidden), num_skipped


def test_training_skips_branches_of_single_frames(base_folder: Path) -> None:
    tower = captioner(base_folder, RATE).model.vision_tower.train()
    torch.manual_seed(11)
    with torch.no_grad():
        given = tower(frames()).last_hidden_state
    torch.manual_seed(11)
    expected, num_skipped = skipped_by_hand(tower, frames())
    assert 0 < num_skipped < 2 * VIT_LAYERS * FRAMES
    torch.testing.assert_close(given, expected, atol=2e-5, rtol=2e-5)


def test_nothing_is_skipped_outside_training(base_folder: Path) -> None:
    plain, model = captioner(base_folder, 0.0), captioner(base_folder, RATE)
    with torch.no_grad():
        towers = [m.model.vision_tower(frames()).last_hidden_state for m in (plain, model)]
    assert torch.equal(*towers)


def test_dropout_in_the_same_places_is_refused(base_folder: Path) -> None:
    model = captioner(base_folder, 0.0)
    model.model.vision_tower.encoder.layer[1].dropout.p = 0.1
    with pytest.raises(ValueError, match="own dropout"):
        use_stochastic_depth(model, RATE)


@pytest.mark.parametrize("rate", ["1", "-0.1"])
def test_a_rate_that_is_no_share_is_refused(rate: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--drop_path_rate"):
        parse_arguments(f"--model_name_or_path m --meta_path m --output_dir {tmp_path} --drop_path_rate {rate}".split())
