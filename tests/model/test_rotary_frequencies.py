"""Rotary frequencies are exact, and each sample of a packed row has those of its own length, alone or not."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, Phi3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

from internvl_chat.model.rotary_frequencies import SampleRotary, restore_precision

SIZES = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 10}


def longrope() -> torch.nn.Module:
    factors = {"short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5], "long_factor": [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 8, **factors}
    lengths = {"max_position_embeddings": 64, "original_max_position_embeddings": 8}
    config = Phi3Config(**SIZES, **lengths, rope_parameters=rope, pad_token_id=0)
    return Phi3RotaryEmbedding(config)


def dynamic() -> torch.nn.Module:
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    return LlamaRotaryEmbedding(LlamaConfig(**SIZES, max_position_embeddings=8, rope_parameters=rope))


@pytest.mark.parametrize("rotary_of", [longrope, dynamic])
@pytest.mark.parametrize("lengths", [(5, 13, 6), (13, 5), (3, 11, 12)])
def test_a_sample_has_the_frequencies_that_it_has_alone(rotary_of: object, lengths: tuple[int, ...]) -> None:
    positions = [torch.arange(length)[None] for length in lengths]
    x = torch.zeros(1, sum(lengths), 24)
    packed = SampleRotary(rotary_of())(x, torch.cat(positions, dim=1))  # type: ignore[operator]
    # Each alone, in a model that has seen nothing else.
    alone = [rotary_of()(x, of_sample) for of_sample in positions]  # type: ignore[operator]
    for number in range(2):
        assert torch.equal(packed[number], torch.cat([one[number] for one in alone], dim=1))
    whole = rotary_of()(x, torch.cat(positions, dim=1))  # type: ignore[operator]
    assert not torch.equal(packed[0], whole[0])


def test_answers_count_to_their_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two answers behind one prompt are one sample: their positions go on from the prompt's."""
    rotary = SampleRotary(longrope())
    seen = []
    ask = rotary.rotary.forward
    monkeypatch.setattr(rotary.rotary, "forward", lambda x, ids: seen.append(ids.tolist()) or ask(x, ids))
    row = [0, 1, 2, 3, 4, 5, 4, 5, 6, 0, 1, 2]
    rotary(torch.zeros(1, len(row), 24), torch.tensor([row]))
    assert seen == [[row[:9]], [row[9:]]]


def test_rows_side_by_side_are_left_to_the_model() -> None:
    ids = torch.stack([torch.arange(9), torch.arange(9)])
    x = torch.zeros(2, 9, 24)
    assert torch.equal(SampleRotary(longrope())(x, ids)[0], longrope()(x, ids)[0])


@pytest.mark.parametrize("rotary_of", [longrope, dynamic])
def test_frequencies_that_were_rounded_are_computed_again(rotary_of: object) -> None:
    exact: torch.nn.Module = rotary_of()  # type: ignore[operator]
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), rotary_of()).bfloat16()  # type: ignore[operator]
    rounded = dict(model[1].named_buffers())
    assert not torch.equal(rounded["inv_freq"].float(), exact.inv_freq)
    restore_precision(model)
    for name, buffer in exact.named_buffers():
        assert torch.equal(model[1].get_buffer(name), buffer)
        assert model[1].get_buffer(name).dtype == torch.float32
    assert model[0].weight.dtype == torch.bfloat16
