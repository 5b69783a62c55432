"""LoRA folded into the weights that it belongs to: the same answers from fewer kernels; and what feeds them."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model

from benchmarks.counting import Launches
from internvl_chat.inference import batch_limits
from internvl_chat.inference.batch_limits import STEP_TOKENS, default_batch_tokens, default_workers
from internvl_chat.inference.predict import BatchLimits
from internvl_chat.inference.prefill import read_prompts
from internvl_chat.inference.ranks import ALONE, Ranks
from internvl_chat.inference.requests import ViewedClip, ViewedPrompt
from internvl_chat.inference.weights import folded
from internvl_chat.model.families.internvl.configuration import IntentVCNetConfig
from internvl_chat.model.families.internvl.model import IntentVCNetForConditionalGeneration
from internvl_chat.model.shared_prompt import use_shared_prompts
from internvl_chat.model.trainable import TrainablePart
from tests.helpers import LLM_WIDTH, randomise, tiny_config

PROMPT = torch.tensor([[20, 21, 22, 23, 24]])
# Of a token in a layer of the language model, in decoding.
MOST_KERNELS = 60


def with_lora(layers: int = 2) -> PeftModel:
    torch.manual_seed(0)
    config = tiny_config(text={**tiny_config().text_config.to_dict(), "num_hidden_layers": layers, "layer_types": None})
    model = IntentVCNetForConditionalGeneration(IntentVCNetConfig.from_base(config, 0))
    lora = TrainablePart(3, freeze_llm=False, freeze_mlp=True, freeze_backbone=True).lora_config("qwen2", 0.1)
    wrapped = get_peft_model(model, lora, autocast_adapter_dtype=False)
    randomise((p for name, p in wrapped.named_parameters() if ".lora_" in name), seed=3)
    return wrapped.eval()


def test_folded_lora_gives_the_same_logits_and_leaves_none_of_its_modules() -> None:
    model = with_lora()
    with torch.no_grad():
        apart = model(input_ids=PROMPT).logits
        bare = model.get_base_model()
        with model.disable_adapter():
            without = bare(input_ids=PROMPT).logits
        one = folded(model)
        torch.testing.assert_close(one(input_ids=PROMPT).logits, apart, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(without, apart, atol=1e-2)
    assert not any(hasattr(module, "lora_A") for module in one.modules())


def test_folding_rounds_a_half_precision_weight_once() -> None:
    model = with_lora().bfloat16()
    name = "model.language_model.layers.1.mlp.down_proj"
    layer = model.get_base_model().get_submodule(name)
    down, up = (layer.get_submodule(f"lora_{half}.default").weight.double() for half in "AB")
    exact = layer.base_layer.weight.double() + layer.scaling["default"] * up @ down
    assert torch.equal(folded(model).get_submodule(name).weight, exact.float().bfloat16())


@torch.inference_mode()
def launches_of_a_token(model: Any) -> Launches:
    use_shared_prompts(model)
    prompts = read_prompts(model, [ViewedClip({}, (ViewedPrompt(PROMPT[0].tolist(), {}),))], 4)
    with Launches() as launches:
        model.model.language_model(
            inputs_embeds=torch.randn(1, 1, LLM_WIDTH),
            position_ids=prompts.next_positions[:, None],
            prompts=prompts,
            use_cache=True,
        )
    return launches


def test_a_decoded_token_launches_few_kernels_a_layer() -> None:
    few, many = (launches_of_a_token(folded(with_lora(layers))).kernels for layers in (2, 5))
    apart = [launches_of_a_token(with_lora(layers).get_base_model()).kernels for layers in (2, 5)]
    assert 0 < (many - few) / 3 <= MOST_KERNELS < (apart[1] - apart[0]) / 3


def test_the_host_does_not_wait_within_a_token() -> None:
    assert launches_of_a_token(folded(with_lora(3))).waits == 0


def test_a_wait_is_counted_where_a_list_has_something_to_copy() -> None:
    with Launches() as launches:
        torch.tensor([])
        assert launches.waits == 0
        torch.tensor([1.0, 2.0]).nonzero()
    assert launches.waits == 2


@pytest.mark.parametrize(("cores", "ranks", "workers"), [(32, 8, 4), (64, 2, 8), (2, 8, 1), (3, 1, 3)])
def test_every_rank_decodes_with_its_share_of_the_cores(
    cores: int, ranks: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cores)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert default_workers() == workers


class OnGpu(Ranks):
    """A rank of an 80 GiB GPU beside one that has room for so many steps."""

    device = torch.device("cuda")
    dtype = torch.bfloat16

    def gathered(self, mine: Any) -> list[Any]:
        return [mine, 11]


@pytest.mark.parametrize(("free_gib", "steps"), [(79, 10), (45, 5), (17, 1), (300, 11)])
def test_a_batch_keeps_what_the_fullest_gpu_has_room_for(
    free_gib: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An 8B: 15 GiB of weights, and 57,344 bytes a token."""
    text = {"num_hidden_layers": 28, "num_key_value_heads": 4, "num_attention_heads": 28, "hidden_size": 3584}
    config = tiny_config(text={**tiny_config().text_config.to_dict(), **text, "layer_types": None})
    monkeypatch.setattr(batch_limits, "expected_shapes", lambda _config: {"all": torch.Size([15, 2**29])})
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (free_gib * 2**30, 80 * 2**30))
    assert default_batch_tokens([config], OnGpu()) == steps * STEP_TOKENS
    assert default_batch_tokens([config], ALONE) == STEP_TOKENS
    assert BatchLimits().beside([config], OnGpu()).batch_tokens == steps * STEP_TOKENS
    assert BatchLimits(7).beside([config], OnGpu()).batch_tokens == 7
