"""Layers that keep little for the backward pass: matrix products and attention are kept, what is cheap is made again.

Half of what a decoder layer keeps are tensors that a few operations an element make from others that are kept anyway:
norms, what dropout left of LoRA's inputs, the gated product, keys repeated for every head. Such a tensor has
a recipe: its function and its inputs, which may have recipes in turn. What the backward pass needs of it is made when
it is first asked for, once, and let go when the last one had it. The numbers are the same, bit for bit.

Checkpointing (`torch.utils.checkpoint`, selective or not) does not serve here: it runs a layer's code again, under
ZeRO-3 with its weights gathered again, where these functions have no large weights at all.
Source: Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models", arXiv 2205.05198.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import get_device_states, set_device_states
from torch.utils.weak import WeakTensorKeyDictionary

from internvl_chat.model.memory.rms_norm import is_rms_norm, rms_norm

_keeps_little: ContextVar[bool] = ContextVar("keeps_little", default=False)


@dataclass(frozen=True)
class _Piece:
    """A tensor that is a view of what a recipe makes, or all of it."""

    recipe: _Recipe
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class _Recipe:
    """How a tensor is made, and who has yet to ask for it, or for what its own backward pass needs.

    Args:
        make: a function of the inputs alone, but for random numbers.
        draws: whether it draws random numbers: the same are drawn again.
    """

    def __init__(self, make: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...], draws: bool) -> None:
        self.make = make
        self.needs_gradient = [tensor.requires_grad for tensor in inputs]
        # A weight's value may be gone by then, as under ZeRO-3; those of norms are small.
        self.inputs = [t.detach().clone() if isinstance(t, nn.Parameter) else _pack(t) for t in inputs]
        self.random_state = _random_state(inputs[0]) if draws else None
        self.asking = 0
        self.inside = 0
        self.made: tuple[torch.Tensor, list[torch.Tensor]] | None = None

    def pack_inside(self, _tensor: torch.Tensor) -> int:
        """The number of a tensor that the recipe's own backward pass needs."""
        self.asking += 1
        self.inside += 1
        return self.inside - 1

    def unpack_inside(self, number: int) -> torch.Tensor:
        return self._answer(lambda _value, inside: inside[number])

    def piece(self, tensor: torch.Tensor) -> _Piece:
        self.asking += 1
        return _Piece(self, tensor.size(), tensor.stride(), int(tensor.storage_offset()))

    def part(self, piece: _Piece) -> torch.Tensor:
        return self._answer(lambda value, _inside: value.as_strided(piece.size, piece.stride, piece.offset))

    def _answer(self, take: Callable[[torch.Tensor, list[torch.Tensor]], torch.Tensor]) -> torch.Tensor:
        self.made = self.made or self._make_again()
        answer = take(*self.made)
        self.asking -= 1
        if self.asking <= 0:
            self.made = None
        return answer

    def _make_again(self) -> tuple[torch.Tensor, list[torch.Tensor]]:
        inside: list[torch.Tensor] = []

        def keep(tensor: torch.Tensor) -> int:
            inside.append(tensor.detach())
            return len(inside) - 1

        inputs = [
            _unpack(kept).detach().requires_grad_(needs)
            for kept, needs in zip(self.inputs, self.needs_gradient, strict=True)
        ]
        drawn = _drawing_again(self.random_state) if self.random_state else nullcontext()
        with torch.enable_grad(), drawn, saved_tensors_hooks(keep, inside.__getitem__):
            value = self.make(*inputs).detach()
        return value, inside


_recipes = WeakTensorKeyDictionary()


def _pack(tensor: torch.Tensor) -> Any:
    """What is kept of a tensor: its recipe, if it or what it is a view of has one, or the tensor."""
    whole = tensor if tensor._base is None else tensor._base
    recipe = _recipes.get(whole)
    if recipe is not None:
        return recipe.piece(tensor)
    # Weights stay what they are: under ZeRO-3 their values come and go.
    return tensor if isinstance(tensor, nn.Parameter) else tensor.detach()


def _unpack(kept: Any) -> torch.Tensor:
    return kept.recipe.part(kept) if isinstance(kept, _Piece) else kept


def keeping_little(run: Callable[..., Any], *args: Any) -> Any:
    """Call a layer so that nothing is kept of what `remade` makes in it; in place of a checkpointing function."""
    token = _keeps_little.set(True)
    try:
        with saved_tensors_hooks(_pack, _unpack):
            return run(*args)
    finally:
        _keeps_little.reset(token)


def remade(make: Callable[..., torch.Tensor], *inputs: torch.Tensor, draws: bool = False) -> torch.Tensor:
    """make(*inputs), which a layer that keeps little makes again for its backward pass; elsewhere nothing more."""
    if not (_keeps_little.get() and torch.is_grad_enabled()):
        return make(*inputs)
    recipe = _Recipe(make, inputs, draws)
    with saved_tensors_hooks(recipe.pack_inside, recipe.unpack_inside):
        made = make(*inputs)
    _recipes[made if made._base is None else made._base] = recipe
    return made


def _random_state(like: torch.Tensor) -> tuple[torch.Tensor, Any]:
    devices, states = get_device_states(like)
    return torch.get_rng_state(), (devices, states)


@contextmanager
def _drawing_again(state: tuple[torch.Tensor, Any]) -> Iterator[None]:
    of_cpu, (devices, of_devices) = state
    with torch.random.fork_rng(devices):
        torch.set_rng_state(of_cpu)
        set_device_states(devices, of_devices)
        yield


class _RemadeNorm:
    weight: nn.Parameter
    variance_epsilon: float

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return remade(partial(rms_norm, eps=self.variance_epsilon), hidden_states, self.weight)


class _RemadeDropout:
    p: float
    training: bool

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return input
        return remade(partial(nnf.dropout, p=self.p), input, draws=True)


def _gated(activation: Callable[[torch.Tensor], torch.Tensor], gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return activation(gate) * up


class _RemadeMlp:
    """The gated feed-forward of the Llama line."""

    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module
    act_fn: nn.Module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(remade(partial(_gated, self.act_fn), self.gate_proj(x), self.up_proj(x)))


class _RemadeFusedMlp:
    """That of Phi-3, whose gate and content come from one product."""

    gate_up_proj: nn.Module
    down_proj: nn.Module
    activation_fn: nn.Module

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up_proj(hidden_states).chunk(2, dim=-1)
        return self.down_proj(remade(partial(_gated, self.activation_fn), gate, up))


# What tells a feed-forward that can be remade, and what is mixed into its class.
_KINDS: tuple[tuple[tuple[str, ...], type], ...] = (
    (("gate_proj", "up_proj", "down_proj", "act_fn"), _RemadeMlp),
    (("gate_up_proj", "down_proj", "activation_fn"), _RemadeFusedMlp),
)


def keep_little(layer: nn.Module) -> None:
    """Let a decoder layer of the Llama line, LoRA in it or not, keep products and attention alone in training."""
    for module in layer.modules():
        kind: type | None = _RemadeDropout if isinstance(module, nn.Dropout) else None
        if is_rms_norm(module):
            kind = _RemadeNorm
        for names, mixed_in in _KINDS:
            if all(hasattr(module, name) for name in names):
                kind = mixed_in
        if kind is not None and not isinstance(module, kind):
            module.__class__ = type(type(module).__name__, (kind, type(module)), {})
    layer.gradient_checkpointing = True  # type: ignore[assignment]
    layer._gradient_checkpointing_func = keeping_little  # type: ignore[assignment]
