"""Tensor names and shapes, original <-> native, from one table read in both directions.

A rule maps a module path; what follows the path (`.weight`, `.bias`, and the `.base_layer.weight`,
`.lora_A.default.weight` that PEFT puts there) is kept. So a LoRA-wrapped checkpoint converts like any other, and
`fold_lora` can add the update in afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from internvl_chat.contracts import UserError
from internvl_chat.model.conversion.weight_files import LazyTensor

# What the original's training sets: alpha is twice the rank, and the update is scaled by alpha / rank.
ORIGINAL_LORA_SCALE = 2.0

PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True)
class FusedRows:
    """How q, k and v share the rows of one projection: `groups` times (the group's q heads, its k, its v).

    InternViT stacks q, k, v: one group whose only "head" is the full width. InternLM2 has a group a key-value head.
    """

    groups: int
    heads_per_group: int
    head_dim: int

    @property
    def rows(self) -> int:
        return self.groups * (self.heads_per_group + 2) * self.head_dim

    def part_rows(self, part: int) -> int:
        return self.groups * self.head_dim * (self.heads_per_group if part == 0 else 1)

    def split(self, fused: torch.Tensor, part: int) -> torch.Tensor:
        """Rows of q (0), k (1) or v (2) of a fused [rows, ...]."""
        grouped = fused.unflatten(0, (self.groups, self.heads_per_group + 2, self.head_dim))
        return grouped.split((self.heads_per_group, 1, 1), dim=1)[part].flatten(0, 2)

    def join(self, parts: Iterable[torch.Tensor]) -> torch.Tensor:
        """The inverse of `split`: q, k, v to a fused [rows, ...]."""
        return torch.cat([p.unflatten(0, (self.groups, -1, self.head_dim)) for p in parts], dim=1).flatten(0, 2)


@dataclass(frozen=True)
class Rule:
    """One module path in both layouts; `{n}` stands for a layer's number.

    Args:
        native: one path, or the three (q, k, v) that `fused` makes of it.
        pointwise: a 1x1 convolution there, a linear layer here.
        leading: the first axis here, of one, is missing there.
    """

    original: str
    native: tuple[str, ...]
    fused: FusedRows | None = None
    pointwise: bool = False
    leading: bool = False


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile("^" + re.escape(path).replace(r"\{n\}", r"(?P<n>\d+)") + r"(?P<leaf>\..+)?$")


class WeightMap:
    """The table of one model, applied in either direction.

    Args:
        rules: every tensor of the model falls under exactly one.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        rules = list(rules)
        self._by_original = [(_pattern(rule.original), rule) for rule in rules]
        self._by_native = [(_pattern(path), rule, part) for rule in rules for part, path in enumerate(rule.native)]

    def to_native(self, tensors: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
        """Native names and shapes of an original checkpoint's tensors.

        Raises:
            UserError: a tensor that no rule knows, or whose shape cannot be split.
        """
        native: dict[str, LazyTensor] = {}
        for name, tensor in tensors.items():
            rule, number, leaf = self._find_original(name)
            for part, path in enumerate(rule.native):
                native[path.replace("{n}", number) + leaf] = _to_native(name, tensor, rule, part, leaf)
        return native

    def _find_original(self, name: str) -> tuple[Rule, str, str]:
        bare = self.bare(name)
        for pattern, rule in self._by_original:
            match = pattern.match(bare)
            if match:
                return rule, match.groupdict().get("n") or "", match["leaf"] or ""
        raise UserError(f"unknown tensor {name}: this is no checkpoint of a known kind")

    def bare(self, name: str) -> str:
        """An original name as the rules have it: without the prefix that PEFT puts into it."""
        return name.replace(PEFT_PREFIX, "", 1)

    def dressed(self, name: str, wrapped: set[str]) -> str:
        """The inverse of `bare`; `wrapped` are the native parts that have LoRA inside."""
        return name

    def to_original(self, tensors: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
        """The inverse of `to_native`.

        Raises:
            UserError: a tensor that no rule knows, or a fused one that is not whole.
        """
        wrapped = {name.split(".")[1] for name in tensors if ".lora_A." in name}
        found: dict[str, tuple[Rule, str, dict[int, LazyTensor]]] = {}
        for name, tensor in tensors.items():
            rule, part, number, leaf = self._find_native(name)
            original = self.dressed(rule.original.replace("{n}", number), wrapped) + leaf
            found.setdefault(original, (rule, leaf, {}))[2][part] = tensor
        return {name: _to_original(name, *item) for name, item in found.items()}

    def _find_native(self, name: str) -> tuple[Rule, int, str, str]:
        for pattern, rule, part in self._by_native:
            match = pattern.match(name)
            if match:
                return rule, part, match.groupdict().get("n") or "", match["leaf"] or ""
        raise UserError(f"unknown tensor {name}: the original layout has no place for it")


def _to_native(name: str, tensor: LazyTensor, rule: Rule, part: int, leaf: str) -> LazyTensor:
    if rule.pointwise and len(tensor.shape) == 4:
        return tensor.map(torch.Size(tensor.shape[:2]), partial(torch.flatten, start_dim=1))
    if rule.leading:
        return tensor.map(torch.Size((1, *tensor.shape)), lambda read: read[None])
    # LoRA's first matrix sees the input, which q, k and v share; only the second has their rows.
    if rule.fused is None or ".lora_A." in leaf:
        return tensor
    if tensor.shape[0] != rule.fused.rows:
        raise UserError(f"{name} has {tensor.shape[0]} rows: the configuration says {rule.fused.rows} (q, k and v)")
    shape = torch.Size((rule.fused.part_rows(part), *tensor.shape[1:]))
    return tensor.map(shape, partial(rule.fused.split, part=part))


def _to_original(name: str, rule: Rule, leaf: str, parts: dict[int, LazyTensor]) -> LazyTensor:
    first = next(iter(parts.values()))
    if rule.pointwise and len(first.shape) == 2:
        return first.map(torch.Size((*first.shape, 1, 1)), lambda tensor: tensor[:, :, None, None])
    if rule.leading:
        return first.map(first.shape[1:], lambda read: read[0])
    if rule.fused is None or ".lora_A." in leaf:
        return first
    if len(parts) != len(rule.native):
        raise UserError(f"{name}: q, k and v are not all there")
    fused = rule.fused
    ordered = [parts[i] for i in range(len(parts))]
    shape = torch.Size((fused.rows, *first.shape[1:]))
    return LazyTensor(shape, first.dtype, lambda: fused.join(part.read() for part in ordered))


def fold_lora(tensors: Mapping[str, LazyTensor], scale: float = ORIGINAL_LORA_SCALE) -> dict[str, LazyTensor]:
    """Native tensors with each `lora_B @ lora_A` added to the weight it belongs to; others stay as they are.

    Args:
        scale: alpha / rank.
    Raises:
        UserError: half of a pair is missing.
    """
    folded = {}
    for name, tensor in tensors.items():
        if ".lora_" in name:
            continue
        bare = name.replace(".base_layer.", ".")
        path = bare.removesuffix(".weight")
        down, up = (tensors.get(f"{path}.lora_{half}.default.weight") for half in "AB")
        if (down is None) != (up is None):
            raise UserError(f"{path}: only one of LoRA's two matrices is there; is the checkpoint complete?")
        if down is not None and up is not None and bare.endswith(".weight"):
            tensor = tensor.map(tensor.shape, partial(_add_update, down=down, up=up, scale=scale))
        folded[bare] = tensor
    return folded


def _add_update(weight: torch.Tensor, *, down: LazyTensor, up: LazyTensor, scale: float) -> torch.Tensor:
    # In fp32 at least: in bf16 the product would be rounded before it is added.
    wide = torch.promote_types(weight.dtype, torch.float32)
    return (weight.to(wide) + scale * (up.read().to(wide) @ down.read().to(wide))).to(weight.dtype)
