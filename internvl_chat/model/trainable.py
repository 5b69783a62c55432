"""Which parameters are trained, and so which are saved: one predicate for both."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

# What LoRA wraps in a language model, by its `model_type`.
_LLAMA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LORA_TARGETS = {
    "qwen2": _LLAMA_TARGETS,
    "qwen3": _LLAMA_TARGETS,
    "llama": _LLAMA_TARGETS,
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
}


@dataclass(frozen=True)
class TrainablePart:
    """What is trained: LoRA on the language model, or all of it; the projector; the ViT. Box adapters always are.

    `use_llm_lora` is the rank, 0 for none; with LoRA the language model's own weights stay frozen.
    """

    use_llm_lora: int
    freeze_llm: bool
    freeze_mlp: bool
    freeze_backbone: bool

    def __contains__(self, parameter_name: str) -> bool:
        """Whether the parameter of this name, in the bare or the LoRA-wrapped model, is trained and saved."""
        if ".lora_" in parameter_name or ".box_adapters." in parameter_name:
            return True
        if ".multi_modal_projector." in parameter_name:
            return not self.freeze_mlp
        if ".vision_tower." in parameter_name:
            return not self.freeze_backbone
        return not self.freeze_llm and self.use_llm_lora == 0

    def mark(self, model: nn.Module) -> None:
        """Set `requires_grad` of every parameter."""
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in self)


def lora_target_pattern(language_model_type: str) -> str:
    """A pattern for PEFT that matches the language model's projections and nothing of the ViT.

    Raises:
        ValueError: no targets are known for this kind of language model.
    """
    if language_model_type not in LORA_TARGETS:
        raise ValueError(f"no LoRA targets known for {language_model_type!r}: known are {', '.join(LORA_TARGETS)}")
    return rf".*\.language_model\..*\.({'|'.join(LORA_TARGETS[language_model_type])})"
