"""What a pass does, counted while it runs, on any device and without one: bytes, kernels, waits for the device."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operators that only look at memory in another way.
VIEWS = frozenset(
    "view _unsafe_view transpose permute expand slice select unsqueeze squeeze t detach alias split split_with_sizes "
    "unbind as_strided unflatten reshape empty_like lift_fresh".split()
)
# Memory that is asked for, and not touched.
MADE_EMPTY = frozenset("empty new_empty empty_strided new_empty_strided".split())
# Asked of a fake tensor through the dispatcher.
QUESTIONS = frozenset(["device"])
# Operators whose time goes by their FLOPs; convolutions along the channels are done element by element.
PRODUCTS = frozenset("mm addmm bmm baddbmm".split())
# A product that reads what it adds onto.
ADDING = frozenset(["addmm_"])
# Operators whose result the host must have seen before it can go on; lists that become tensors are blocking copies.
WAITS = frozenset("_local_scalar_dense nonzero masked_select is_nonzero equal _unique2 lift_fresh".split())


def _name(func: Callable[..., Any]) -> str:
    return func._schema.name.partition("::")[2]  # type: ignore[attr-defined]


class AllocatedBytes(TorchDispatchMode):
    """Bytes that tensors made under this mode take now, and the most that they took at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.alive: set[int] = set()

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self.alive:
            return
        size, key = storage.nbytes(), storage._cdata
        self.alive.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.alive.discard(key)
        self.now -= size


class MovedBytes(TorchDispatchMode):
    """Bytes that operators other than products read and write, each operand and each result once."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = _name(func)
        # What only fills memory reads nothing.
        read = () if name in ("fill_", "zero_") else tree_leaves((args, kwargs))
        if name in ADDING:
            self.moved += args[0].nbytes
        elif name not in VIEWS | PRODUCTS | MADE_EMPTY | QUESTIONS:
            tensors = (leaf for leaf in (*read, *tree_leaves(out)) if isinstance(leaf, torch.Tensor))
            # Of what is repeated by its strides alone, the one copy.
            self.moved += sum(min(t.nbytes, t.untyped_storage().nbytes()) for t in tensors)
        return out


class Launches(TorchDispatchMode):
    """How many operators touch data (`kernels`), and after how many the host waits for the device (`waits`)."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = self.waits = 0

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = _name(func)
        self.kernels += name not in VIEWS
        # A cache's layer begins with an empty list, of which nothing is copied.
        is_empty_list = name == "lift_fresh" and args[0].numel() == 0
        self.waits += (name in WAITS and not is_empty_list) or (name.startswith("index") and _has_mask(args))
        return func(*args, **(kwargs or {}))


def _has_mask(args: Any) -> bool:
    """Whether an index operator picks by a mask, so that the size of its result is known on the device alone."""
    indices = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()
    return any(isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in indices)
