"""Checkpoints on disk: what training writes, and loading it on top of its base.

A training checkpoint holds only what was trained:

    config.json                 geometry, number of adapters, and which base it belongs to
    adapter_config.json         LoRA in PEFT's own format (absent without LoRA)
    adapter_model.safetensors
    trained_modules.safetensors projector, box adapters, and whatever else was not frozen
    tokenizer and processor files
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from internvl_chat.contracts import UserError
from internvl_chat.families import family_of
from internvl_chat.files import replacing
from internvl_chat.model.conversion.weight_files import open_safetensors
from internvl_chat.model.loading import (
    base_fingerprint,
    load_config,
    load_weights,
    open_native,
    own_config,
    resolve_folder,
    with_modules,
    with_vocabulary,
)

LORA_WEIGHTS_NAME = "adapter_model.safetensors"
LORA_CONFIG_NAME = "adapter_config.json"
TRAINED_MODULES_NAME = "trained_modules.safetensors"
# The trainer writes it last, so a folder without it was cut off while being written.
COMPLETION_MARK_NAME = "trainer_state.json"
# Sizes of all other files that a run needs to go on. Without it a checkpoint holds weights alone.
FILE_LIST_NAME = "checkpoint_files.json"
# Left in the checkpoints of an earlier run when another one starts anew in its folder.
REPLACED_NAME = "replaced"

_PEFT_PREFIX = "base_model.model."


def is_training_checkpoint(folder: Path) -> bool:
    """Whether a folder holds what training saved, to be loaded on top of a base."""
    return (folder / TRAINED_MODULES_NAME).is_file()


def complete_checkpoints(output_dir: Path) -> list[Path]:
    """The complete `checkpoint-*` folders of a run, oldest first: the run can go on from each."""
    return sorted(filter(can_go_on_from, output_dir.glob("checkpoint-*")), key=step_of)


def step_of(checkpoint: Path) -> int:
    """The number in a checkpoint's name; -1 where there is none."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def is_complete(checkpoint: Path) -> bool:
    """Whether the trainer wrote a folder to its end, and nothing of it was lost since.

    A kill while the trainer deletes an old checkpoint loses part of it; so does a copy that was cut off.
    """
    mark, listed = checkpoint / COMPLETION_MARK_NAME, checkpoint / FILE_LIST_NAME
    if not mark.is_file():
        return False
    try:
        json.loads(mark.read_text())
        sizes = json.loads(listed.read_text()) if listed.is_file() else {}
    except ValueError:
        return False
    files = {checkpoint / name: size for name, size in sizes.items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in files.items())


def can_go_on_from(checkpoint: Path) -> bool:
    """Whether a folder is complete and has more than weights: the optimizer, the schedule, the random states."""
    return (checkpoint / FILE_LIST_NAME).is_file() and is_complete(checkpoint)


def file_sizes(checkpoint: Path) -> dict[str, int]:
    """Size by name of each file that makes a checkpoint, but for its list and its completion mark."""
    said_last = (COMPLETION_MARK_NAME, FILE_LIST_NAME)
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name not in said_last)
    return {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in files}


def list_files(checkpoint: Path, seen: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Write down the files that make a checkpoint whole.

    Args:
        seen: size by name as each rank sees the folder. A file was seen by whoever wrote it, as large as it is.
    Returns:
        What was written down.
    """
    names = sorted({name for sizes in seen for name in sizes})
    listed = {name: max(sizes.get(name, 0) for sizes in seen) for name in names}
    (checkpoint / FILE_LIST_NAME).write_text(json.dumps(listed, indent=1))
    return listed


def written_ns(checkpoint: Path) -> int:
    """When a complete checkpoint was finished, in nanoseconds."""
    return (checkpoint / COMPLETION_MARK_NAME).stat().st_mtime_ns


def half_written_checkpoints(output_dir: Path) -> list[Path]:
    """The `checkpoint-*` folders that were cut off while being written or deleted."""
    return sorted(folder for folder in output_dir.glob("checkpoint-*") if not is_complete(folder))


def save_trained(model: PreTrainedModel | PeftModel, state_dict: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write the trained parameters in `state_dict` (names as in `model`) and the configuration to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    lora = {name: tensor for name, tensor in state_dict.items() if ".lora_" in name}
    modules = {
        name.removeprefix(_PEFT_PREFIX): tensor.detach().cpu().contiguous()
        for name, tensor in state_dict.items()
        # Shared with the embeddings, it would be written, and trained on, twice.
        if name not in lora and not (name.endswith("lm_head.weight") and model.config.tie_word_embeddings)
    }
    if isinstance(model, PeftModel):
        model.peft_config[model.active_adapter].save_pretrained(str(folder))
        lora = get_peft_model_state_dict(model, state_dict=lora, save_embedding_layers=False)
        _save_atomically({k: v.detach().cpu().contiguous() for k, v in lora.items()}, folder / LORA_WEIGHTS_NAME)
    _save_atomically(modules, folder / TRAINED_MODULES_NAME)


def _save_atomically(tensors: dict[str, torch.Tensor], path: Path) -> None:
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})


def load_trained(model: PreTrainedModel | PeftModel, folder: Path) -> None:
    """Read what `save_trained` wrote into a model of the same geometry, in place.

    Raises:
        UserError: a file is missing or broken, its tensors do not fit the model, or it was trained on another base.
    """
    bare = model.get_base_model() if isinstance(model, PeftModel) else model
    of_model = bare.config
    _check_same_base(folder, load_config(folder), of_model.base_fingerprint, str(of_model.base_model_name_or_path))
    _load_strictly(bare, _read_tensors(folder / TRAINED_MODULES_NAME), folder)
    if isinstance(model, PeftModel):
        try:
            result = set_peft_model_state_dict(model, _read_tensors(folder / LORA_WEIGHTS_NAME))
        except RuntimeError as error:
            raise UserError(
                f"{folder / LORA_WEIGHTS_NAME}: does not fit the model: its LoRA has another rank, or was trained on "
                "another base; give --use_llm_lora as it was trained"
            ) from error
        missing = [key for key in result.missing_keys if ".lora_" in key]
        if result.unexpected_keys or missing:
            raise UserError(
                f"{folder / LORA_WEIGHTS_NAME}: does not fit the base model: {len(missing)} tensors missing, "
                f"{len(result.unexpected_keys)} unknown; was it trained on another base?"
            )


def load_trained_anywhere(model: PreTrainedModel | PeftModel, folder: Path) -> None:
    """`load_trained` into a model that ZeRO-3 may have spread over the ranks.

    Raises:
        UserError: as `load_trained` does.
    """
    spread = [p for p in model.parameters() if p.requires_grad and hasattr(p, "ds_id")]
    if not spread:
        load_trained(model, folder)
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(spread, modifier_rank=0):
        load_trained(model, folder)


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({error})") from error


def _load_strictly(model: nn.Module, tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    own = dict(model.named_parameters())
    # With LoRA inside, a wrapped projection's own weight is called `<projection>.base_layer.weight`.
    unknown = [name for name in tensors if name not in own]
    added = family_of(model.config).parts.NAMES.is_added
    added_missing = [name for name in own if added(name) and name not in tensors]
    if unknown or added_missing:
        raise UserError(
            f"{folder / TRAINED_MODULES_NAME}: does not fit the base model: {len(unknown)} tensors unknown "
            f"(such as {unknown[:1]}), {len(added_missing)} of the added modules missing"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            if own[name].shape != tensor.shape:
                raise UserError(
                    f"{folder / TRAINED_MODULES_NAME}: {name} is {list(tensor.shape)}, the base model has "
                    f"{list(own[name].shape)}; was it trained on another base?"
                )
            own[name].copy_(tensor)


def load_base(
    model_path: str,
    *,
    num_adapter_layers: int,
    dtype: torch.dtype,
    attn_implementation: str | None = None,
    image_size_px: int | None = None,
    num_tokens: int | None = None,
    image_token_id: int | None = None,
    modules: Iterable[str] = (),
    device: torch.device | None = None,
) -> PreTrainedModel:
    """Load a base, in either layout, and add freshly initialised box adapters where it has none.

    Args:
        model_path: local folder or hub id.
        dtype: of all weights.
        image_size_px: side of the tiles it will see, if not the checkpoint's own.
        modules: of other controls that it is to have, see `with_modules`.
        num_tokens, image_token_id: of the tokenizer it will be used with, if it may have more than the checkpoint's.
        device: see `load_weights`.
    Raises:
        UserError: nothing is there, it is of no known family, or its files are incomplete or do not fit each other.
    """
    folder = resolve_folder(model_path)
    config = load_config(folder)
    with_modules(config, modules)
    family = family_of(config)
    own_adapters = family.configuration.num_adapters(config)
    if own_adapters not in (0, num_adapter_layers):
        raise UserError(
            f"{model_path}: has box adapters after {own_adapters} layers: expected {num_adapter_layers}; "
            f"give --num_adapter_layers {own_adapters}"
        )
    config = family.configuration.captioner_config(config, num_adapter_layers)
    family.parts.with_tile_side(config, image_size_px)
    if num_tokens is not None and image_token_id is not None:
        with_vocabulary(config, num_tokens, image_token_id)
    tensors = open_native(folder)
    config.base_model_name_or_path = str(folder.resolve()) if Path(model_path).is_dir() else model_path
    config.base_fingerprint = base_fingerprint(tensors, config)
    return load_weights(
        folder,
        config,
        tensors,
        dtype=dtype,
        added_may_lack=True,
        attn_implementation=attn_implementation,
        device=device,
    )


def load_captioner(
    checkpoint: Path,
    *,
    base_path: str | None = None,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | None = None,
) -> PreTrainedModel | PeftModel:
    """Load a model for prediction, in eval mode: a training checkpoint on top of its base, or a complete model.

    Args:
        checkpoint: folder.
        base_path: where the base lies now, if it was moved since training.
        device: see `load_weights`.
    Raises:
        UserError: the folder is no checkpoint, its base is not found, or the two do not fit.
    """
    config = own_config(load_config(checkpoint))
    if not is_training_checkpoint(checkpoint):
        family_of(config).parts.with_tile_side(config, None)
        return load_weights(checkpoint, config, open_native(checkpoint, base_path), dtype=dtype, device=device).eval()

    base = base_of(checkpoint, config, base_path)
    model: PreTrainedModel | PeftModel = load_weights(
        base, config, open_native(base), dtype=dtype, added_may_lack=True, device=device
    )
    if (checkpoint / LORA_CONFIG_NAME).is_file():
        open_safetensors(checkpoint / LORA_WEIGHTS_NAME)  # its header names a missing or broken file before PEFT does
        model = PeftModel.from_pretrained(model, str(checkpoint), autocast_adapter_dtype=False)
    load_trained(model, checkpoint)
    return model.eval()


def base_of(checkpoint: Path, config: PreTrainedConfig, base_path: str | None = None) -> Path:
    """The folder of the base that a training checkpoint belongs to.

    Args:
        config: the checkpoint's.
        base_path: where the base lies now, if it was moved since training.
    Raises:
        UserError: it is not there, or is another one.
    """
    base_path = base_path or getattr(config, "base_model_name_or_path", None)
    if base_path is None:
        raise UserError(f"{checkpoint}: does not say which base it belongs to; give it as --base")
    if os.path.isabs(base_path) and not Path(base_path).is_dir():
        raise UserError(
            f"{checkpoint}: was trained on the base {base_path}, which is not there; give its new place as --base"
        )
    folder = resolve_folder(base_path)
    _check_same_base(checkpoint, config, base_fingerprint(open_native(folder), config), str(folder))
    return folder


def _check_same_base(checkpoint: Path, trained: Any, fingerprint: str | None, base: str) -> None:
    expected = getattr(trained, "base_fingerprint", None)
    if None not in (expected, fingerprint) and expected != fingerprint:
        raise UserError(
            f"{checkpoint}: was trained on another base: expected one with fingerprint {expected} "
            f"(then at {trained.base_model_name_or_path}), {base} has {fingerprint}; give its own base"
        )
