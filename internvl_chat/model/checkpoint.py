"""Checkpoints on disk: what training writes, and loading it on top of its base.

A training checkpoint holds only what was trained:

    config.json                 geometry, number of adapters, and which base it belongs to
    adapter_config.json         LoRA in PEFT's own format (absent without LoRA)
    adapter_model.safetensors
    trained_modules.safetensors projector, box adapters, and whatever else was not frozen
    tokenizer and processor files
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, InternVLConfig, PreTrainedModel

from internvl_chat.contracts import UserError
from internvl_chat.model.captioner import IntentVCNetForConditionalGeneration
from internvl_chat.model.configuration import IntentVCNetConfig

LORA_WEIGHTS_NAME = "adapter_model.safetensors"
LORA_CONFIG_NAME = "adapter_config.json"
TRAINED_MODULES_NAME = "trained_modules.safetensors"
# The trainer writes it last, so a folder without it was cut off while being written.
COMPLETION_MARK_NAME = "trainer_state.json"

_PEFT_PREFIX = "base_model.model."


def is_training_checkpoint(folder: Path) -> bool:
    """Whether a folder holds what training saved, to be loaded on top of a base."""
    return (folder / TRAINED_MODULES_NAME).is_file()


def complete_checkpoints(output_dir: Path) -> list[Path]:
    """The complete `checkpoint-*` folders of a run, oldest first."""
    marked = (folder / COMPLETION_MARK_NAME for folder in output_dir.glob("checkpoint-*"))
    return [mark.parent for mark in sorted((m for m in marked if m.is_file()), key=lambda m: m.stat().st_mtime)]


def half_written_checkpoints(output_dir: Path) -> list[Path]:
    """The `checkpoint-*` folders that were cut off while being written."""
    return sorted(set(output_dir.glob("checkpoint-*")) - set(complete_checkpoints(output_dir)))


def save_trained(model: PreTrainedModel | PeftModel, state_dict: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write the trained parameters in `state_dict` (names as in `model`) and the configuration to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    lora = {name: tensor for name, tensor in state_dict.items() if ".lora_" in name}
    modules = {
        name.removeprefix(_PEFT_PREFIX): tensor.detach().cpu().contiguous()
        for name, tensor in state_dict.items()
        if name not in lora
    }
    if isinstance(model, PeftModel):
        model.peft_config[model.active_adapter].save_pretrained(str(folder))
        lora = get_peft_model_state_dict(model, state_dict=lora, save_embedding_layers=False)
        _save_atomically({k: v.detach().cpu().contiguous() for k, v in lora.items()}, folder / LORA_WEIGHTS_NAME)
    _save_atomically(modules, folder / TRAINED_MODULES_NAME)


def _save_atomically(tensors: dict[str, torch.Tensor], path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    save_file(tensors, temporary, metadata={"format": "pt"})
    os.replace(temporary, path)


def load_trained(model: PreTrainedModel | PeftModel, folder: Path) -> None:
    """Read what `save_trained` wrote into a model of the same geometry, in place.

    Raises:
        UserError: a file is missing or broken, or its tensors do not fit the model.
    """
    bare = model.get_base_model() if isinstance(model, PeftModel) else model
    _load_strictly(bare, _read_tensors(folder / TRAINED_MODULES_NAME), folder)
    if isinstance(model, PeftModel):
        result = set_peft_model_state_dict(model, _read_tensors(folder / LORA_WEIGHTS_NAME))
        missing = [key for key in result.missing_keys if ".lora_" in key]
        if result.unexpected_keys or missing:
            raise UserError(
                f"{folder / LORA_WEIGHTS_NAME}: does not fit the base model: {len(missing)} tensors missing, "
                f"{len(result.unexpected_keys)} unknown; was it trained on another base?"
            )


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({error})") from error


def _load_strictly(model: nn.Module, tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    own = dict(model.named_parameters())
    # With LoRA inside, a wrapped projection's own weight is called `<projection>.base_layer.weight`.
    unknown = [name for name in tensors if name not in own]
    adapters_missing = [name for name in own if ".box_adapters." in name and name not in tensors]
    if unknown or adapters_missing:
        raise UserError(
            f"{folder / TRAINED_MODULES_NAME}: does not fit the base model: {len(unknown)} tensors unknown "
            f"(such as {unknown[:1]}), {len(adapters_missing)} of the box adapters missing"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            if own[name].shape != tensor.shape:
                raise UserError(
                    f"{folder / TRAINED_MODULES_NAME}: {name} is {list(tensor.shape)}, the base model has "
                    f"{list(own[name].shape)}; was it trained on another base?"
                )
            own[name].copy_(tensor)


def load_config(model_path: str) -> InternVLConfig:
    """The configuration of a base, a merged model or a training checkpoint.

    Raises:
        UserError: nothing is there, or it is no InternVL.
    """
    try:
        config = AutoConfig.from_pretrained(model_path)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{model_path}: is neither a checkpoint folder nor a model of the hub ({reason})") from error
    if not isinstance(config, InternVLConfig):
        raise UserError(f"{model_path}: is a {config.model_type!r} model, expected 'internvl' or 'intentvcnet'")
    return config


def load_base(
    model_path: str, *, num_adapter_layers: int, dtype: torch.dtype, attn_implementation: str | None = None
) -> IntentVCNetForConditionalGeneration:
    """Load a base InternVL and add freshly initialised box adapters.

    Args:
        model_path: local folder or hub id.
        dtype: of all weights.
    """
    config = load_config(model_path)
    if not isinstance(config, IntentVCNetConfig):
        config = IntentVCNetConfig.from_base(config, num_adapter_layers)
    config.base_model_name_or_path = str(Path(model_path).resolve()) if Path(model_path).is_dir() else model_path
    return IntentVCNetForConditionalGeneration.from_pretrained(
        model_path, config=config, dtype=dtype, attn_implementation=attn_implementation
    )


def load_captioner(
    checkpoint: Path, *, base_path: str | None = None, dtype: torch.dtype = torch.bfloat16
) -> PreTrainedModel | PeftModel:
    """Load a model for prediction, in eval mode: a training checkpoint on top of its base, or a complete model.

    Args:
        checkpoint: folder.
        base_path: where the base lies now, if it was moved since training.
    Raises:
        UserError: the folder is no checkpoint, its base is not found, or the two do not fit.
    """
    if not is_training_checkpoint(checkpoint):
        config = load_config(str(checkpoint))
        if not isinstance(config, IntentVCNetConfig):
            config = IntentVCNetConfig.from_base(config, num_adapter_layers=0)
        return IntentVCNetForConditionalGeneration.from_pretrained(checkpoint, config=config, dtype=dtype).eval()

    config = load_config(str(checkpoint))
    base_path = base_path or config.base_model_name_or_path
    if os.path.isabs(base_path) and not Path(base_path).is_dir():
        raise UserError(
            f"{checkpoint}: was trained on the base {base_path}, which is not there; "
            "give its new place as --model_name_or_path"
        )
    model: PreTrainedModel | PeftModel = IntentVCNetForConditionalGeneration.from_pretrained(
        base_path, config=config, dtype=dtype
    )
    if (checkpoint / LORA_CONFIG_NAME).is_file():
        model = PeftModel.from_pretrained(model, str(checkpoint), autocast_adapter_dtype=False)
    load_trained(model, checkpoint)
    return model.eval()
