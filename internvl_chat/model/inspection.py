"""What a checkpoint is, how large, and what memory it takes; from its configuration, without weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from torch import nn
from transformers import InternVLConfig
from transformers import initialization as init
from transformers.modeling_utils import set_zero3_state

from internvl_chat.model.captioner import IntentVCNetForConditionalGeneration
from internvl_chat.model.checkpoint import LORA_WEIGHTS_NAME, TRAINED_MODULES_NAME, is_training_checkpoint
from internvl_chat.model.configuration import IntentVCNetConfig
from internvl_chat.model.conversion.config import is_original, original_kind, template_of
from internvl_chat.model.conversion.files import open_safetensors
from internvl_chat.model.loading import load_config, read_config_file, resolve_folder
from internvl_chat.model.trainable import TrainablePart

GIB = 2**30
# bfloat16 weights; AdamW keeps two moments and a master copy in fp32 beside a bfloat16 gradient.
WEIGHT_BYTES = 2
TRAINED_BYTES = 2 + 3 * 4
# Text beside the frames' tokens: "Frame-1: ", a line of coordinates, the question (IntentVCNet's prompt).
TEXT_TOKENS_PER_FRAME = 45

_PARTS = {
    ".box_adapters.": "box adapters",
    ".lora_": "LoRA",
    "vision_tower.": "ViT",
    "multi_modal_projector.": "projector",
    "language_model.": "language model",
    "lm_head.": "language model",
}


def part_of(parameter_name: str) -> str:
    """The part of the model that a parameter belongs to."""
    return next(part for mark, part in _PARTS.items() if mark in parameter_name)


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
    total = {"total": sum(rows.values())}
    return [f"{title}:"] + [f"  {name:<24}{form.format(value):>20}" for name, value in {**rows, **total}.items()]


def inspect_checkpoint(
    model_path: str,
    trained: TrainablePart,
    *,
    num_adapter_layers: int = 5,
    num_frames: int = 48,
    ranks: int = 1,
) -> Inspection:
    """Inspect a folder or hub id; the model is built on the meta device.

    Args:
        trained: what a run would train of it.
        num_adapter_layers: box adapters that a run would add where there are none.
        num_frames: of one sample, one sample a step, activations recomputed in the backward pass.
        ranks: GPUs that weights, gradients and optimizer are spread over (ZeRO-3).
    Raises:
        UserError: the folder is no checkpoint.
    """
    folder = resolve_folder(model_path)
    config = load_config(folder)
    own_adapters = getattr(config.vision_config, "num_adapter_layers", 0)
    own = _sizes(_meta_model(config, own_adapters))
    model = _meta_model(config, own_adapters or num_adapter_layers)
    wrapped = _with_lora(model, trained)
    trained_sizes = _trained_sizes(folder) or _sizes(wrapped, trained)
    weights = _sizes(wrapped)
    states = sum(weights.values()) * WEIGHT_BYTES + sum(trained_sizes.values()) * TRAINED_BYTES
    tokens = num_frames * (config.image_seq_length + TEXT_TOKENS_PER_FRAME)
    layout = "original" if is_original(read_config_file(folder)) else "hf"
    return Inspection(
        name=Path(model_path).name,
        layout="training checkpoint" if is_training_checkpoint(folder) else layout,
        language_model=original_kind(config),
        template=template_of(config),
        num_adapter_layers=own_adapters,
        sizes=own,
        trained=trained_sizes,
        training_bytes={
            "weights": sum(weights.values()) * WEIGHT_BYTES // ranks,
            "gradients and optimizer": (states - sum(weights.values()) * WEIGHT_BYTES) // ranks,
            **_activation_bytes(config, num_frames, tokens, own_adapters or num_adapter_layers),
        },
        prediction_bytes={
            "weights": sum(own.values()) * WEIGHT_BYTES,
            "key-value cache": _cache_bytes(config, tokens),
        },
    )


def _meta_model(config: InternVLConfig, num_adapter_layers: int) -> IntentVCNetForConditionalGeneration:
    own = IntentVCNetConfig.from_base(config, num_adapter_layers)
    # Marked as already under ZeRO-3's hand: it would partition the meta tensors of the inner models.
    with set_zero3_state(), init.no_init_weights(), torch.device("meta"):
        model = IntentVCNetForConditionalGeneration(own)
    model.tie_weights()
    return model


def _with_lora(model: IntentVCNetForConditionalGeneration, trained: TrainablePart) -> nn.Module:
    lora = trained.lora_config(model.config.text_config.model_type)
    if lora is None:
        return model
    with torch.device("meta"):
        return get_peft_model(model, lora, low_cpu_mem_usage=True)


def _sizes(model: nn.Module, trained: TrainablePart | None = None) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if trained is None or name in trained:
            sizes[part_of(name)] = sizes.get(part_of(name), 0) + parameter.numel()
    return sizes


def _trained_sizes(folder: Path) -> dict[str, int]:
    """What a training checkpoint holds; nothing for any other folder."""
    sizes: dict[str, int] = {}
    if is_training_checkpoint(folder):
        for file in (TRAINED_MODULES_NAME, LORA_WEIGHTS_NAME):
            tensors = open_safetensors(folder / file) if (folder / file).is_file() else {}
            for name, tensor in tensors.items():
                sizes[part_of(name)] = sizes.get(part_of(name), 0) + tensor.shape.numel()
    return sizes


def _activation_bytes(config: InternVLConfig, num_frames: int, tokens: int, adapted_layers: int) -> dict[str, int]:
    """With recomputation: the input of every layer that gradients pass is kept, the inside of one layer at a time.

    In the frozen ViT those are the adapted layers. A transformer layer's inside is about 16 times its width plus 3
    times its MLP's, per token; the loss holds logits in bfloat16 and twice in fp32.
    """
    text, vision = config.text_config, config.vision_config
    patches = num_frames * (1 + (vision.image_size[0] // vision.patch_size[0]) ** 2)

    def layers(count: int, width: int, inner: int, positions: int) -> int:
        return positions * WEIGHT_BYTES * (count * width + 16 * width + 3 * inner)

    return {
        "ViT activations": layers(adapted_layers, vision.hidden_size, vision.intermediate_size, patches),
        "LLM activations": layers(text.num_hidden_layers, text.hidden_size, text.intermediate_size, tokens),
        "logits and loss": tokens * text.vocab_size * (2 + 4 + 4),
    }


def _cache_bytes(config: InternVLConfig, tokens: int) -> int:
    text = config.text_config
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * text.num_key_value_heads * head_dim * tokens * WEIGHT_BYTES
