"""Tier 3: initialisation and gradients under ZeRO-3, where constructors see empty shards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from internvl_chat.files import read_json
from internvl_chat.model.checkpoint import load_base
from tests.train.conftest import BASE_MODEL
from tests.train.running import run_on_two_ranks
from tests.train.zero3_matrix import TOKENS

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks wrote: tensors, and beside them losses as JSON."""
    out = tmp_path_factory.mktemp("zero3") / "gathered.safetensors"
    run_on_two_ranks(Path(__file__).with_name("zero3_probe.py"), BASE_MODEL, out)
    return out


@pytest.fixture(scope="module")
def gathered(probed: Path) -> dict[str, torch.Tensor]:
    return load_file(probed)


@pytest.fixture(scope="module")
def losses(probed: Path) -> dict[str, list[float]]:
    """By attention and what is computed again: of rows of every kind on both ranks, then tokens that were generated."""
    return read_json(probed.with_suffix(".json"))


def adapter_weights(tensors: dict[str, torch.Tensor], end: str) -> list[torch.Tensor]:
    found = [t for name, t in tensors.items() if ".box_adapters." in name and name.endswith(end)]
    assert len(found) >= 2, f"no adapter weights end with {end}"
    return found


def plain_weights() -> dict[str, torch.Tensor]:
    model = load_base(str(BASE_MODEL), num_adapter_layers=2, dtype=torch.float32)
    return {f"weight.{name}": p.detach() for name, p in model.named_parameters()}


@pytest.mark.parametrize("how", ["plain", "zero3"])
def test_adapters_are_initialised_through_from_pretrained(how: str, request: pytest.FixtureRequest) -> None:
    tensors = request.getfixturevalue("gathered") if how == "zero3" else plain_weights()
    weights = {name: t for name, t in tensors.items() if name.startswith("weight.")}
    for end in ("attention_out.weight", "attention_out.bias", "ffn_out.weight", "roi_conv.bias", "query.bias"):
        assert all(not bool(t.any()) for t in adapter_weights(weights, end)), end
    for end in ("attention_norm.weight", "ffn_norm.weight"):
        assert all(bool((t == 1).all()) for t in adapter_weights(weights, end)), end
    for end in ("roi_conv.weight", "roi_proj.weight", "query.weight", "ffn_in.weight", "ffn_depthwise.weight"):
        for t in adapter_weights(weights, end):
            fan_in = t[0].numel()
            assert t.std().item() * fan_in**0.5 == pytest.approx(1, abs=0.1), end
            assert abs(t.mean().item()) < 0.1 * fan_in**-0.5, end


def test_adapters_differ_from_each_other(gathered: dict[str, torch.Tensor]) -> None:
    first, second = adapter_weights(gathered, "query.weight")[:2]
    assert not torch.equal(first, second)


def test_every_trained_parameter_gets_a_gradient(gathered: dict[str, torch.Tensor]) -> None:
    gradients = {name: t for name, t in gathered.items() if name.startswith("gradient.")}
    assert any(".lora_A." in name for name in gradients)
    assert any(".multi_modal_projector." in name for name in gradients)
    assert any(".box_adapters.1.key.weight" in name for name in gradients)
    # A key's bias shifts all scores of a query alike, which softmax cannot see.
    idle = [name for name, t in gradients.items() if not bool(t.any()) and not name.endswith("key.bias")]
    assert not idle


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_what_is_computed_again_changes_no_loss(attention: str, losses: dict[str, list[float]]) -> None:
    """In bfloat16, with every weight let go between its uses."""
    ways = {name: row for name, row in losses.items() if name.startswith(attention)}
    assert len(ways) == {"sdpa": 4, "eager": 2}[attention]
    expected = ways.pop(f"{attention}, nothing")
    # The third row is one that could not be read, on the second rank.
    assert expected[5] == expected[-1] == 0 < expected[4]
    for name, row in ways.items():
        assert row == pytest.approx(expected[: 6 + TOKENS], rel=1e-3), name


def test_both_attentions_lose_about_the_same_and_more_steps_lose_less(losses: dict[str, list[float]]) -> None:
    sdpa, eager = (losses[f"{attention}, nothing"] for attention in ("sdpa", "eager"))
    assert sdpa[:6] + sdpa[-6:] == pytest.approx(eager[:6] + eager[-6:], rel=0.03)
    assert sdpa[-6] < sdpa[0]
