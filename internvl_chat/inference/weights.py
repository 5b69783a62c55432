"""A model's files: read for a rank's device, and told from others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from internvl_chat.inference.ranks import Ranks
from internvl_chat.model.checkpoint import load_captioner

_MODEL_FILES = ("*.json", "*.safetensors", "*.bin", "*.model")


def load_weights(folder: Path, base_path: str | None, ranks: Ranks, keep_lora: bool = False) -> Any:
    """The captioner of a base, a training checkpoint or a merged folder, in eval mode on this rank's device.

    Args:
        keep_lora: leave LoRA's matrices beside the weights, as in training; otherwise they are folded in.
    Raises:
        UserError: its weights, or those of its base, cannot be used.
    """
    model = load_captioner(folder, base_path=base_path, dtype=ranks.dtype).to(ranks.device)
    if not isinstance(model, PeftModel):
        return model
    return model.get_base_model() if keep_lora else folded(model)


@torch.no_grad()
def folded(model: PeftModel) -> PreTrainedModel:
    """The bare model with what LoRA adds in its weights, rounded once; three products and sums fewer a matrix."""
    for module in model.modules():
        if isinstance(module, LoraLayer):
            weight = module.get_base_layer().weight
            for name in module.active_adapters:
                down, up = module.lora_A[name].weight.float(), module.lora_B[name].weight.float()
                weight.copy_(weight.float() + module.scaling[name] * (up @ down))
    return model.unload()


def file_marks(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of each file that makes the model."""
    files = sorted(path for pattern in _MODEL_FILES for path in folder.glob(pattern))
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
