"""Complete checkpoints written anew: in the other layout, or with what was trained folded in. One tensor at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedConfig

from internvl_chat.contracts import UserError
from internvl_chat.families import CONFIG_NAME, FAMILIES, family_of, read_config_file
from internvl_chat.model.checkpoint import (
    LORA_CONFIG_NAME,
    LORA_WEIGHTS_NAME,
    TRAINED_MODULES_NAME,
    base_of,
    is_training_checkpoint,
)
from internvl_chat.model.conversion.weight_files import LazyTensor, open_safetensors, write_weights
from internvl_chat.model.conversion.weight_map import fold_lora
from internvl_chat.model.loading import check_weights, fit_tables, load_config, open_native, resolve_folder

Layout = Literal["original", "hf"]
MAX_SHARD_BYTES = 5 * 10**9

_COPIED_SUFFIXES = (".json", ".txt", ".model", ".jinja")
# What describes the weights, or the state of a training run, and not the text around them.
_NOT_COPIED = (CONFIG_NAME, LORA_CONFIG_NAME, "trainer_state.json", "run.json")


def convert_checkpoint(source: Path, target: Path, to: Layout, max_shard_bytes: int = MAX_SHARD_BYTES) -> int:
    """Write the complete model in `source` to `target` in another layout; no value is changed.

    Returns:
        The number of tensors written.
    Raises:
        UserError: `source` is no complete model, or `target` is not empty.
    """
    if is_training_checkpoint(source):
        raise UserError(f"{source}: holds only what was trained; make a complete model of it with 'merge' first")
    config = load_config(source)
    tensors = open_native(source)
    check_weights(source, config, tensors)
    return _write(target, config, tensors, to, source, max_shard_bytes)


def begin_base(language_model: Path, tower: str, target: Path) -> None:
    """Write what a bare language model and a tower, folders or hub ids, begin training as.

    Raises:
        UserError: `target` is not empty, no family begins so, or the two cannot be used.
    """
    _check_empty(target)
    folder = resolve_folder(language_model)
    kind = read_config_file(folder).get("model_type")
    starts = [family.start for family in FAMILIES if family.start is not None]
    start = next((start for start in starts if kind in start.LANGUAGE_MODELS), None)
    if start is None:
        known = ", ".join(repr(name) for start in starts for name in start.LANGUAGE_MODELS)
        raise UserError(f"{language_model}: is a {kind!r} model: expected one of {known} to begin a base with a tower")
    start.write_start(folder, resolve_folder(tower), target)


def merge_checkpoint(
    checkpoint: Path,
    target: Path,
    *,
    base_path: str | None = None,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> int:
    """Write a training checkpoint and its base as one complete model: LoRA folded in, everything else replaced.

    What an original's training saves, a complete checkpoint with LoRA inside or a part alone, is folded likewise.

    Args:
        base_path: where the base lies now, if it was moved since training.
        dtype: of the floating point tensors written; None keeps each as it is stored.
    Returns:
        The number of tensors written.
    Raises:
        UserError: the folder is no checkpoint, its base is not found, or the two do not fit.
    """
    config, tensors = complete_model(checkpoint, base_path, dtype)
    return _write(target, config, tensors, "hf", checkpoint, max_shard_bytes)


def complete_model(
    checkpoint: Path, base_path: str | None = None, dtype: torch.dtype | None = None
) -> tuple[PreTrainedConfig, dict[str, LazyTensor]]:
    """Configuration and native tensors of a checkpoint with what was trained folded in; none is read yet.

    Args:
        base_path: where the base lies now, if it was moved since training.
        dtype: of the floating point tensors; None keeps each as it is stored.
    Raises:
        UserError: the folder is no checkpoint, its base is not found, or the two do not fit.
    """
    config = load_config(checkpoint)
    if is_training_checkpoint(checkpoint):
        base = base_of(checkpoint, config, base_path)
        tensors = fold_lora(open_native(base))
        config.tie_word_embeddings = config.text_config.tie_word_embeddings = "lm_head.weight" not in tensors
        tensors = _cast(fit_tables(tensors, config), dtype)
        tensors |= _cast(open_safetensors(checkpoint / TRAINED_MODULES_NAME), dtype)
        if (checkpoint / LORA_CONFIG_NAME).is_file():
            tensors = fold_lora(tensors | _trained_lora(checkpoint), _lora_scale(checkpoint))
    else:
        tensors = fold_lora(_cast(open_native(checkpoint, base_path), dtype))
    _without_lora(config)
    check_weights(checkpoint, config, tensors)
    return config, tensors


def _trained_lora(checkpoint: Path) -> dict[str, LazyTensor]:
    """LoRA's matrices under the names that they have inside a wrapped model."""
    stored = open_safetensors(checkpoint / LORA_WEIGHTS_NAME)
    return {
        name.removeprefix("base_model.model.").replace(".weight", ".default.weight"): tensor
        for name, tensor in stored.items()
    }


def _lora_scale(checkpoint: Path) -> float:
    path = checkpoint / LORA_CONFIG_NAME
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return float(fields["lora_alpha"]) / float(fields["r"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: is no LoRA configuration ({error!r})") from error


def _without_lora(config: Any) -> None:
    if hasattr(config, "base_fingerprint"):
        config.base_model_name_or_path = config.base_fingerprint = None
        config.num_added_tokens = 0
    family_of(config).parts.without_lora(config)


def _cast(tensors: Mapping[str, LazyTensor], dtype: torch.dtype | None) -> dict[str, LazyTensor]:
    return {
        name: tensor.to(dtype) if dtype is not None and tensor.dtype.is_floating_point else tensor
        for name, tensor in tensors.items()
    }


def _write(
    target: Path,
    config: PreTrainedConfig,
    tensors: Mapping[str, LazyTensor],
    layout: Layout,
    source: Path,
    max_shard_bytes: int,
) -> int:
    _check_empty(target)
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    original = family_of(config).original
    if layout == "original":
        named = original.weight_map(config).to_original(tensors)
        fields = {**original.original_config(config), "torch_dtype": dtype}
    else:
        named = {original.native_to_hub(name): tensor for name, tensor in tensors.items()}
        fields = {**_hub_config(config, tensors), "dtype": dtype}
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        copied = path.suffix in _COPIED_SUFFIXES and not path.name.endswith(".index.json")
        if copied and path.is_file() and path.name not in _NOT_COPIED:
            shutil.copyfile(path, target / path.name)
    write_weights(target, named, max_shard_bytes)
    # Last, so that a folder that was cut off while being written is no checkpoint.
    (target / CONFIG_NAME).write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return len(named)


def _check_empty(target: Path) -> None:
    if target.exists() and any(target.iterdir()):
        raise UserError(f"{target}: is not empty; give a new folder")


def _hub_config(config: Any, tensors: Mapping[str, LazyTensor]) -> dict[str, Any]:
    """A config.json that transformers' own model reads, where nothing of ours is inside."""
    family = family_of(config)
    tied = "lm_head.weight" not in tensors
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = tied
    ours = any(family.parts.NAMES.is_added(name) or ".lora_A." in name for name in tensors)
    return family.original.hub_config(config, is_plain=not ours)
