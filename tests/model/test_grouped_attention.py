"""Attention to keys that heads share: its derivatives, what it keeps, and its rounding in bfloat16."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as nnf
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from internvl_chat.model import shared_prompt
from internvl_chat.model.grouped_attention import grouped_attention
from internvl_chat.model.shared_prompt import additive_bias, attend_to_prompts, attend_to_shared_prompts

# Rounding of a share or a value to bfloat16 costs as much as in the fused kernel; rounded scores cost ten times that.
MOST_OF_SDPA = 1.5


def repeated(states: torch.Tensor, heads: int) -> torch.Tensor:
    return states.repeat_interleave(heads // states.shape[1], dim=1)


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_output_and_gradients_are_those_of_softmax_attention_to_repeated_keys() -> None:
    query, key, value = draw(2, 6, 4, 5, seed=0), draw(2, 3, 7, 5, seed=1), draw(2, 3, 7, 5, seed=2)
    mask = torch.rand(4, 7, generator=torch.Generator().manual_seed(3)) > 0.4
    mask[:, 2] = True
    for tensor in (query, key, value):
        tensor.requires_grad_()
    found = grouped_attention(query, key, value, mask, 0.3)
    scores = (query @ repeated(key, 6).transpose(-1, -2) * 0.3).masked_fill(~mask, -torch.inf)
    expected = scores.softmax(-1) @ repeated(value, 6)
    torch.testing.assert_close(found, expected)
    wanted = draw(*found.shape, seed=4)
    for got, want in zip(
        torch.autograd.grad(found, (query, key, value), wanted),
        torch.autograd.grad(expected, (query, key, value), wanted),
        strict=True,
    ):
        torch.testing.assert_close(got, want)
    assert torch.autograd.gradcheck(lambda *states: grouped_attention(*states, mask, 0.3), (query, key, value))


def test_no_scores_and_no_repeated_keys_are_kept_for_the_backward_pass() -> None:
    query, key, value = (torch.randn(1, heads, length, 8) for heads, length in ((12, 5), (2, 300), (2, 300)))
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        grouped_attention(query.requires_grad_(), key.requires_grad_(), value, torch.ones(5, 300).bool(), 0.3)
    assert max(kept) == key.numel()


def offset_states(deviation: float, offset: float) -> list[torch.Tensor]:
    """Query, new key and value, prompt's key and value, in float64: scores that deviate so, around so much."""
    asks, rows_per_ask, groups, heads, width, prompt, new = 1, 3, 2, 6, 128, 2048, 5
    direction = nnf.normalize(draw(width, seed=0), dim=0)
    shift = direction * offset**0.5 * width**0.25
    query = draw(asks * rows_per_ask, heads, 1, width, seed=1) * deviation
    query = query - (query @ direction)[..., None] * direction + shift
    key, value = (draw(asks * rows_per_ask, groups, new, width, seed=seed) for seed in (2, 3))
    prompt_key, prompt_value = (draw(asks, groups, prompt, width, seed=seed) for seed in (4, 5))
    return [query, key + shift, value, prompt_key + shift, prompt_value]


@pytest.mark.parametrize(("deviation", "offset"), [(1, 0), (10, 0), (10, 200)])
def test_a_token_in_bfloat16_rounds_no_more_than_the_fused_kernel(deviation: float, offset: float) -> None:
    query, key, value, prompt_key, prompt_value = states = [s.bfloat16() for s in offset_states(deviation, offset)]
    scaling = query.shape[-1] ** -0.5

    def whole(dtype: torch.dtype) -> torch.Tensor:
        keys, values = (
            repeated(torch.cat([prompt.repeat_interleave(len(new), 0), new], dim=2).to(dtype), query.shape[1])
            for prompt, new in ((prompt_key, key), (prompt_value, value))
        )
        return nnf.scaled_dot_product_attention(query.to(dtype), keys, values, scale=scaling).transpose(1, 2).double()

    exact = whole(torch.float64)
    found = attend_to_shared_prompts(*states, None, scaling).double()
    assert (found - exact).norm() <= MOST_OF_SDPA * (whole(torch.bfloat16) - exact).norm()


@pytest.mark.parametrize(("deviation", "offset"), [(1, 0), (10, 200)])
def test_answers_in_bfloat16_round_no_more_than_the_fused_kernel(deviation: float, offset: float) -> None:
    query, _, _, key, value = (s.bfloat16() for s in offset_states(deviation, offset))
    query = query.transpose(0, 2).contiguous()
    rows, keys = query.shape[2], key.shape[2]
    mask = torch.ones(rows, keys, dtype=torch.bool).tril(keys - rows)
    wanted = draw(*query.shape, seed=6)

    def gradients(dtype: torch.dtype, grouped: bool) -> list[torch.Tensor]:
        states = [s.to(dtype).detach().requires_grad_() for s in (query, key, value)]
        if grouped:
            output = grouped_attention(*states, mask, query.shape[-1] ** -0.5)
        else:
            many = (repeated(s, query.shape[1]) for s in states[1:])
            output = nnf.scaled_dot_product_attention(states[0], *many, mask, scale=query.shape[-1] ** -0.5)
        return [s.double() for s in (output, *torch.autograd.grad(output, states, wanted.to(dtype)))]

    exact, fused = gradients(torch.float64, False), gradients(torch.bfloat16, False)
    for got, of_kernel, want in zip(gradients(torch.bfloat16, True), fused, exact, strict=True):
        assert (got.detach() - want).norm() <= MOST_OF_SDPA * (of_kernel - want).norm()


def test_autocast_rounds_no_scores() -> None:
    """As float16 trains without DeepSpeed: rotary leaves queries and keys in float32, values are in float16."""
    query, _, _, key, value = (s.half() for s in offset_states(10, 200))
    query = query.transpose(0, 2).contiguous()
    mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool)

    def gradients(autocast: bool, dtype: torch.dtype) -> list[torch.Tensor]:
        states = [s.float().requires_grad_() for s in (query, key)] + [value.to(dtype).requires_grad_()]
        with torch.autocast("cpu", torch.float16, enabled=autocast):
            output = grouped_attention(*states, mask, query.shape[-1] ** -0.5)
        return [s.detach().double() for s in (output, *torch.autograd.grad(output.float().square().sum(), states))]

    for got, want in zip(gradients(True, torch.float16), gradients(False, torch.float32), strict=True):
        assert (got - want).norm() <= 0.01 * want.norm()


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="fake tensors of a GPU want a build with CUDA")
@pytest.mark.parametrize("width", [12, 64])
@pytest.mark.parametrize(
    ("padded", "has_flash", "kernel"), [(False, True, "flash"), (False, False, "efficient"), (True, True, "efficient")]
)
def test_what_a_gpu_reads_prompts_with(
    padded: bool, has_flash: bool, kernel: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On fake tensors, which know what each kernel gives: a bias goes to the one that takes it."""
    monkeypatch.setattr(shared_prompt, "can_use_flash_attention", lambda _: has_flash)
    called: list[str] = []

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.append(func._schema.name)
            return func(*args, **(kwargs or {}))

    asks, groups, rows, prompt = 3, 2, 35, 99
    with FakeTensorMode(), Names():
        query, key, value = (
            torch.empty(asks, groups, length, width, dtype=torch.bfloat16, device="cuda")
            for length in (rows, prompt, prompt)
        )
        bias = additive_bias(torch.ones(asks, prompt, device="cuda"), torch.bfloat16) if padded else None
        output, log_sums = attend_to_prompts(query, key, value, bias, 0.3)
    assert output.shape == query.shape and log_sums.shape == query.shape[:3]
    assert bias is None or (bias.stride(0) % 16 == 0 and bias.shape == (asks, prompt))
    assert [name for name in called if "dot_product" in name] == [f"aten::_scaled_dot_product_{kernel}_attention"]
