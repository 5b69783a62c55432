"""What a checkpoint is, how large, and what memory it takes; from its configuration, without weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_utils import set_zero3_state

from internvl_chat.families import family_of, read_config_file
from internvl_chat.model.checkpoint import LORA_WEIGHTS_NAME, TRAINED_MODULES_NAME, is_training_checkpoint
from internvl_chat.model.conversion.weight_files import open_safetensors
from internvl_chat.model.label_loss import CHUNK_TOKENS
from internvl_chat.model.loading import load_config, resolve_folder, with_modules
from internvl_chat.model.memory.recomputation import Recomputation
from internvl_chat.model.part_names import ADAPTERS, PartNames
from internvl_chat.model.trainable import TrainablePart
from internvl_chat.planning.footprint import Footprint, PassShape, prompt_tokens

GIB = 2**30
# bfloat16 weights; AdamW keeps two moments and a master copy in fp32 beside a gradient that is added up in fp32.
WEIGHT_BYTES = 2
GRADIENT_BYTES, OPTIMIZER_BYTES = 4, 3 * 4


def part_of(parameter_name: str, names: PartNames) -> str:
    """The part of the model that a parameter belongs to."""
    marks = {f".{ADAPTERS}.": "box adapters", ".lora_": "LoRA"}
    marks |= {f".{module}.": module.replace("_", " ") for module in names.added if module != ADAPTERS}
    marks |= {f"{names.tower}.": "ViT", f"{names.projector}.": "projector"}
    marks |= {f"{names.language_model}.": "language model", "lm_head.": "language model"}
    return next(part for mark, part in marks.items() if mark in parameter_name)


@dataclass(frozen=True)
class Inspection:
    """Parameters and bytes by part. `sizes` are the checkpoint's own; `trained` and `training_bytes` those of a run."""

    name: str
    layout: str
    language_model: str
    template: str | None
    num_adapter_layers: int
    sizes: dict[str, int]
    trained: dict[str, int]
    training_bytes: dict[str, int]
    prediction_bytes: dict[str, int]

    @property
    def parameters(self) -> int:
        return sum(self.sizes.values())

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "parameters": self.parameters}

    def as_text(self) -> str:
        lines = [
            f"{self.name}: {self.layout} layout, {self.language_model} language model, "
            f"template {self.template or 'not recorded'}, {self.num_adapter_layers} box adapters",
            *_table("parameters", self.sizes, "{:,}"),
            *_table("trained", self.trained, "{:,}"),
            *_table("memory to train, GiB a GPU", {k: v / GIB for k, v in self.training_bytes.items()}, "{:.2f}"),
            *_table("memory to predict, GiB", {k: v / GIB for k, v in self.prediction_bytes.items()}, "{:.2f}"),
        ]
        return "\n".join(lines) + "\n"


def _table(title: str, rows: dict[str, Any], form: str) -> list[str]:
    if not rows:
        return []
    total = {"total": sum(rows.values())}
    return [f"{title}:"] + [f"  {name:<24}{form.format(value):>20}" for name, value in {**rows, **total}.items()]


def inspect_checkpoint(
    model_path: str,
    trained: TrainablePart,
    *,
    num_adapter_layers: int = 5,
    num_frames: int = 48,
    ranks: int = 1,
    modules: Sequence[str] = (),
) -> Inspection:
    """Inspect a folder or hub id; the model is built on the meta device.

    Args:
        trained: what a run would train of it.
        num_adapter_layers: box adapters that a run would add where there are none, and the family has a place for them.
        num_frames: of one sample, one sample a step, activations recomputed in the backward pass.
        modules: of other controls that a run would add.
        ranks: GPUs that weights, gradients and optimizer are spread over (ZeRO-3).
    Raises:
        UserError: the folder is no checkpoint.
    """
    folder = resolve_folder(model_path)
    config = load_config(folder)
    family = family_of(config)
    own_adapters = family.configuration.num_adapters(config)
    takes_adapters = ADAPTERS in family.parts.NAMES.added
    run_adapters = own_adapters or (num_adapter_layers if takes_adapters else 0)
    own = _sizes(_meta_model(config, own_adapters), family.parts.NAMES)
    with_modules(config, modules)
    weights, trained_sizes = parameter_counts(config, trained, run_adapters)
    trained_sizes = _trained_sizes(folder, family.parts.NAMES) or trained_sizes
    tokens = prompt_tokens(config, num_frames)
    footprint = Footprint(config, replace(trained, names=family.parts.NAMES), run_adapters)
    shape = PassShape(num_frames, tokens, CHUNK_TOKENS)
    layout = "original" if family.original.is_original(read_config_file(folder)) else "hf"
    return Inspection(
        name=Path(model_path).name,
        layout="training checkpoint" if is_training_checkpoint(folder) else layout,
        language_model=family.original.language_model_kind(config),
        template=family.parts.template_of(config),
        num_adapter_layers=own_adapters,
        sizes=own,
        trained=trained_sizes,
        training_bytes={
            "weights": sum(weights.values()) * WEIGHT_BYTES // ranks,
            "gradients and optimizer": sum(trained_sizes.values()) * (GRADIENT_BYTES + OPTIMIZER_BYTES) // ranks,
            "activations": footprint.peak_activation_bytes(
                shape, Recomputation.of_layers(config.text_config.num_hidden_layers)
            ),
        },
        prediction_bytes={
            "weights": sum(own.values()) * WEIGHT_BYTES,
            "key-value cache": _cache_bytes(config, tokens),
        },
    )


def parameter_counts(
    config: PreTrainedConfig, trained: TrainablePart, num_adapter_layers: int
) -> tuple[dict[str, int], dict[str, int]]:
    """Parameters by part of the model that a run trains, LoRA among them: of all, and of what is trained."""
    names = family_of(config).parts.NAMES
    trained = replace(trained, names=names)
    wrapped = _with_lora(_meta_model(config, num_adapter_layers), trained)
    return _sizes(wrapped, names), _sizes(wrapped, names, trained)


def _meta_model(config: PreTrainedConfig, num_adapter_layers: int) -> PreTrainedModel:
    family = family_of(config)
    own = family.configuration.captioner_config(copy.deepcopy(config), num_adapter_layers)
    # Marked as already under ZeRO-3's hand: it would partition the meta tensors of the inner models.
    with set_zero3_state(), init.no_init_weights(), torch.device("meta"):
        model = family.model.Captioner(own)
    model.tie_weights()
    return model


def _with_lora(model: PreTrainedModel, trained: TrainablePart) -> nn.Module:
    lora = trained.lora_config(model.config.text_config.model_type)
    if lora is None:
        return model
    with torch.device("meta"):
        return get_peft_model(model, lora, low_cpu_mem_usage=True)


def _sizes(model: nn.Module, names: PartNames, trained: TrainablePart | None = None) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if trained is None or name in trained:
            part = part_of(name, names)
            sizes[part] = sizes.get(part, 0) + parameter.numel()
    return sizes


def _trained_sizes(folder: Path, names: PartNames) -> dict[str, int]:
    """What a training checkpoint holds; nothing for any other folder."""
    sizes: dict[str, int] = {}
    if is_training_checkpoint(folder):
        for file in (TRAINED_MODULES_NAME, LORA_WEIGHTS_NAME):
            tensors = open_safetensors(folder / file) if (folder / file).is_file() else {}
            for name, tensor in tensors.items():
                part = part_of(name, names)
                sizes[part] = sizes.get(part, 0) + tensor.shape.numel()
    return sizes


def _cache_bytes(config: PreTrainedConfig, tokens: int) -> int:
    text = config.text_config
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * text.num_key_value_heads * head_dim * tokens * WEIGHT_BYTES
