"""Layers that keep little: how little, and that nothing else changes, bit for bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import LlamaConfig, Phi3Config, PreTrainedConfig, Qwen2Config, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.phi3.modeling_phi3 import Phi3DecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from benchmarks.counting import AllocatedBytes
from internvl_chat.contracts import SharedPrefix
from internvl_chat.model.memory.remaking import keep_little
from internvl_chat.model.shared_prefix import PackedAttention
from internvl_chat.model.trainable import LORA_TARGETS

# The goal is that an 8B of 9,600 tokens fits into 80 GB with none of its layers computed again.
MOST_BYTES_A_TOKEN = 115_000
EIGHT_B: dict[str, int] = {"hidden_size": 3584, "num_attention_heads": 28, "num_key_value_heads": 4}
EIGHT_B |= {"intermediate_size": 18944, "num_hidden_layers": 1, "vocab_size": 7}
SMALL: dict[str, int] = {"hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 2}
SMALL |= {"intermediate_size": 80, "num_hidden_layers": 1, "vocab_size": 7, "head_dim": 8, "pad_token_id": 0}
PROMPT, ANSWERS = 21, (5, 3)
LAYERS: dict[str, tuple[type[PreTrainedConfig], Any]] = {
    "qwen2": (Qwen2Config, Qwen2DecoderLayer),
    "qwen3": (Qwen3Config, Qwen3DecoderLayer),
    "llama": (LlamaConfig, LlamaDecoderLayer),
    "phi3": (Phi3Config, Phi3DecoderLayer),
}


def decoder_layer(kind: str, sizes: dict[str, int], rank: int, dropout: float = 0.05) -> nn.Module:
    """In training mode, all of it trained or LoRA alone."""
    make_config, make_layer = LAYERS[kind]
    config = make_config(**sizes)
    config._attn_implementation = "shared_prefix_sdpa"
    layer = make_layer(config, 0).train()
    if rank:
        targets = list(LORA_TARGETS[kind])
        lora = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=dropout, target_modules=targets)
        LoraModel(nn.ModuleDict({"layer": layer}), {"default": lora}, "default", low_cpu_mem_usage=False)
        for name, parameter in layer.named_parameters():
            parameter.requires_grad_(".lora_" in name)
    return layer


def run(layer: nn.Module, hidden: torch.Tensor, prompt: int, answers: tuple[int, ...], head: int) -> torch.Tensor:
    length = prompt + sum(answers)
    angles = torch.linspace(0, 9, length)[:, None] * torch.linspace(0.1, 1, head)
    rotary = (angles.cos().to(hidden.dtype)[None], angles.sin().to(hidden.dtype)[None])
    packed = PackedAttention.of((SharedPrefix(prompt, answers),), torch.arange(length))
    no_mask = torch.empty(1, 1, 0, 0)
    return layer(hidden, position_embeddings=rotary, attention_mask=no_mask, packed=packed, use_cache=False)


def kept_bytes(layer: nn.Module, prompt: int) -> int:
    hidden = torch.zeros(1, prompt + 100, EIGHT_B["hidden_size"], dtype=torch.bfloat16, requires_grad=True)
    with AllocatedBytes() as allocated:
        out = run(layer, hidden, prompt, (20,) * 5, 128)
    # The output is the next layer's input, and counted there.
    return allocated.now - out.nbytes


@pytest.mark.parametrize(("little", "fewest", "most"), [(True, 100_000, MOST_BYTES_A_TOKEN), (False, 250_000, 400_000)])
def test_bytes_a_token_and_layer_of_an_8b(little: bool, fewest: int, most: int) -> None:
    """On fake tensors, at the length of 32 frames; what is kept once, weights among it, drops out."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            layer = decoder_layer("qwen2", EIGHT_B, rank=128)
    finally:
        torch.set_default_dtype(before)
    if little:
        keep_little(layer)
    with FakeTensorMode():
        for module in layer.modules():
            for name, parameter in module.named_parameters(recurse=False):
                fake = torch.empty(parameter.shape, dtype=torch.bfloat16)
                setattr(module, name, nn.Parameter(fake, parameter.requires_grad))
        long, short = kept_bytes(layer, 9548), kept_bytes(layer, 8548)
    assert fewest < (long - short) / 1000 < most


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("rank", [4, 0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_output_and_gradients_are_the_same(kind: str, rank: int, dtype: torch.dtype) -> None:
    """Dropout draws the same; the backward pass is taken twice, and something is drawn in between."""
    torch.manual_seed(0)
    plain = decoder_layer(kind, SMALL, rank).to(dtype)
    for parameter in plain.parameters():
        nn.init.normal_(parameter, std=0.3)
    little = copy.deepcopy(plain)
    keep_little(little)
    hidden = torch.randn(1, PROMPT + sum(ANSWERS), SMALL["hidden_size"], dtype=dtype)
    found = []
    for layer in (plain, little):
        given = hidden.clone().requires_grad_()
        torch.manual_seed(1)
        out = run(layer, given, PROMPT, ANSWERS, SMALL["head_dim"])
        after = torch.rand(3)
        for _ in range(2):
            out.backward(torch.ones_like(out), retain_graph=True)
        gradients = {name: p.grad for name, p in layer.named_parameters() if p.requires_grad}
        found.append({"out": out, "hidden": given.grad, "drawn after": after, **gradients})
    assert all(tensor is not None for tensor in found[0].values())
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, rtol=0, atol=0, msg=name)


def test_nothing_is_made_again_where_nothing_is_kept() -> None:
    layer = decoder_layer("qwen2", SMALL, rank=3)
    keep_little(layer)
    hidden = torch.randn(1, PROMPT, SMALL["hidden_size"])
    with torch.no_grad():
        once = run(layer.eval(), hidden, PROMPT, (), SMALL["head_dim"])
    with_gradients = run(layer, hidden, PROMPT, (), SMALL["head_dim"])
    assert torch.equal(once, with_gradients) and with_gradients.requires_grad
