"""A model's files: read for a rank's device, and told from others."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import BitsAndBytesConfig, PreTrainedModel

from internvl_chat.contracts import UserError
from internvl_chat.families import family_of
from internvl_chat.inference.ranks import Ranks
from internvl_chat.model.checkpoint import load_captioner
from internvl_chat.model.export import complete_model
from internvl_chat.model.loading import load_weights as load_tensors
from internvl_chat.model.loading import own_config

_MODEL_FILES = ("*.json", "*.safetensors", "*.bin", "*.model")
# bitsandbytes packs 4-bit matrices in blocks of this size where the processor has AVX-512's bfloat16.
_CPU_INPUTS, _CPU_OUTPUTS = 64, 32


def load_weights(folder: Path, base_path: str | None, ranks: Ranks, keep_lora: bool = False) -> Any:
    """The captioner of a base, a training checkpoint or a merged folder, in eval mode on this rank's device.

    Args:
        keep_lora: leave LoRA's matrices beside the weights, as in training; otherwise they are folded in.
    Raises:
        UserError: its weights, or those of its base, cannot be used.
    """
    model = load_captioner(folder, base_path=base_path, dtype=ranks.dtype, device=ranks.device)
    # What was trained comes on top, from files of its own.
    model = model.to(ranks.device)
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


def check_quantizer(bits: int) -> None:
    """See to it that weights can be quantized here.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise UserError(f"--quantize {bits}: bitsandbytes is not installed; install requirements/quantize.txt")


def load_quantized(folder: Path, base_path: str | None, ranks: Ranks, bits: int) -> PreTrainedModel:
    """A captioner whose language model's matrices have 8 or 4 bits a number, each quantized as it is read.

    What was trained, LoRA too, is folded in before. Tower, projector, added modules and head are as they were.

    Args:
        bits: 8 (LLM.int8) or 4 (NF4).
    Raises:
        UserError: the model's weights, or those of its base, cannot be used, or cannot be quantized.
    """
    check_quantizer(bits)
    base, tensors = complete_model(folder, base_path)
    config = own_config(base)
    family = family_of(config)
    family.parts.with_tile_side(config, None)
    names = family.parts.NAMES
    whole = [f"model.{part}" for part in (names.tower, names.projector, *names.added)]
    quantization = BitsAndBytesConfig(
        load_in_8bit=bits == 8,
        load_in_4bit=bits == 4,
        llm_int8_skip_modules=[*whole, "lm_head"],
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=ranks.dtype,
    )
    # It says at every product that it computes in half precision.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    try:
        model = load_tensors(
            folder,
            config,
            tensors,
            dtype=ranks.dtype,
            quantization_config=quantization,
            device_map={"": str(ranks.device)},
        )
    except (ImportError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--quantize {bits}: {folder} cannot be quantized here ({reason})") from error
    if bits == 4 and ranks.device.type == "cpu":
        _check_blocks(model, folder)
    return model.eval()


def _check_blocks(model: PreTrainedModel, folder: Path) -> None:
    for name, module in model.named_modules():
        if not hasattr(getattr(module, "weight", None), "quant_state"):
            continue
        if module.in_features % _CPU_INPUTS or module.out_features % _CPU_OUTPUTS:
            raise UserError(
                f"--quantize 4: {folder}: {name} is {module.in_features} x {module.out_features}: on a CPU expected "
                f"multiples of {_CPU_INPUTS} and {_CPU_OUTPUTS}; give --quantize 8"
            )


def language_model_bytes(model: PreTrainedModel) -> int:
    """Memory of the language model's weights without the head's, what quantization keeps beside them included."""
    name = family_of(model.config).parts.NAMES.language_model
    weights = getattr(model.model, name).parameters()
    return sum(weight.nbytes + sum(kept.nbytes for kept in _scales(weight)) for weight in weights)


def _scales(weight: Any) -> list[torch.Tensor]:
    """What bitsandbytes keeps of a weight beside its numbers: a scale a row with 8 bits, one a block with 4."""
    state = getattr(weight, "quant_state", None)
    kept = (getattr(weight, "SCB", None), getattr(state, "absmax", None))
    return [tensor for tensor in kept if tensor is not None]


def file_marks(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of each file that makes the model."""
    files = sorted(path for pattern in _MODEL_FILES for path in folder.glob(pattern))
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
