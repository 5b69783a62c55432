"""Which parameters are trained, and so which are saved: one predicate for both."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

import torch
from peft import LoraConfig
from torch import nn

from internvl_chat.model.part_names import USUAL_NAMES, PartNames

# The output layer's table of tokens, in the bare or the wrapped model.
HEAD_TABLE = "lm_head.weight"
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
    """What is trained: LoRA on the language model, or all of it; the projector; the ViT. Added modules always are.

    Args:
        use_llm_lora, use_backbone_lora: LoRA's rank in the language model and in the ViT, 0 for none; with LoRA the
            part's own weights stay frozen, but for what the next two name.
        unfrozen_vit_layers: ViT layers trained whole, whatever becomes of the others.
        unfreeze_lm_head: whether the output layer is trained whole.
        names: of the model's parts.
        new_tokens: ids that the base has never seen. Their rows of the embeddings and of the output layer, all alike at
            the start, are trained though the language model's own weights are not.
    """

    use_llm_lora: int
    freeze_llm: bool
    freeze_mlp: bool
    freeze_backbone: bool
    use_backbone_lora: int = 0
    unfrozen_vit_layers: range = range(0)
    unfreeze_lm_head: bool = False
    names: PartNames = USUAL_NAMES
    new_tokens: range = range(0)

    def __contains__(self, parameter_name: str) -> bool:
        """Whether the parameter of this name, in the bare or the LoRA-wrapped model, is trained and saved."""
        names = self.names
        if ".lora_" in parameter_name or names.is_added(parameter_name):
            return True
        if f".{names.projector}." in parameter_name:
            return not self.freeze_mlp
        if f".{names.tower}." in parameter_name:
            layer = re.search(rf"\.{re.escape(f'{names.tower}.{names.tower_layers}')}\.(\d+)\.", parameter_name)
            if layer and int(layer[1]) in self.unfrozen_vit_layers:
                return True
            return not self.freeze_backbone and self.use_backbone_lora == 0
        return self._trains_whole(parameter_name) or self.trains_rows(parameter_name)

    def _trains_whole(self, parameter_name: str) -> bool:
        """Of a parameter of the language model."""
        if self.unfreeze_lm_head and parameter_name.endswith(HEAD_TABLE):
            return True
        return not self.freeze_llm and self.use_llm_lora == 0

    def trains_rows(self, parameter_name: str) -> bool:
        """Whether the parameter is a table that is trained, and saved, for the rows of the new tokens alone."""
        is_table = parameter_name.endswith((self.names.embedding_table, HEAD_TABLE))
        return is_table and len(self.new_tokens) > 0 and not self._trains_whole(parameter_name)

    def mark(self, model: nn.Module) -> None:
        """Set `requires_grad` of every parameter; of a table with new rows, the others' gradients become zero."""
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in self)
            if self.trains_rows(name):
                parameter.register_hook(partial(_of_rows, rows=self.new_tokens))

    def lora_config(self, language_model_type: str, dropout: float = 0.0, alpha: float = 0.0) -> LoraConfig | None:
        """PEFT's configuration of the LoRA asked for, None for none.

        Args:
            dropout: in front of its first matrix.
            alpha: of all its matrices; 0 is twice the rank of each.
        Raises:
            ValueError: no targets are known for this kind of language model.
        """
        names = self.names
        inside = names.tower_layers.partition(".")[0]
        tower_pattern = rf".*\.{names.tower}\.{inside}\..*\.({'|'.join(names.tower_lora)})"
        patterns = []
        if self.use_llm_lora:
            patterns.append(lora_target_pattern(language_model_type, self.names))
        if self.use_backbone_lora:
            patterns.append(tower_pattern)
        if not patterns:
            return None
        rank = self.use_llm_lora or self.use_backbone_lora
        differs = len(patterns) == 2 and self.use_backbone_lora != rank
        return LoraConfig(
            r=rank,
            lora_alpha=alpha or 2 * rank,
            lora_dropout=dropout,
            target_modules="|".join(f"({pattern})" for pattern in patterns),
            rank_pattern={tower_pattern: self.use_backbone_lora} if differs else {},
            alpha_pattern={tower_pattern: alpha or 2 * self.use_backbone_lora} if differs else {},
            task_type="CAUSAL_LM",
        )


def _of_rows(gradient: torch.Tensor, rows: range) -> torch.Tensor:
    """A table's gradient [V, D] that is zero outside of some rows."""
    kept = torch.zeros_like(gradient)
    kept[rows.start : rows.stop] = gradient[rows.start : rows.stop]
    return kept


def unfrozen_layers(first: int, num_layers: int) -> range:
    """The layers that `--unfreeze_vit_layers` names: from `first` on, counted from the end where negative; 0 = none.

    Raises:
        ValueError: there is no such layer.
    """
    if not -num_layers <= first < num_layers:
        raise ValueError(f"unfreeze_vit_layers {first}: expected {-num_layers} to {num_layers - 1}")
    return range(num_layers)[first:] if first else range(0)


def lora_target_pattern(language_model_type: str, names: PartNames = USUAL_NAMES) -> str:
    """A pattern for PEFT that matches the language model's projections and nothing of the ViT.

    Raises:
        ValueError: no targets are known for this kind of language model.
    """
    if language_model_type not in LORA_TARGETS:
        raise ValueError(f"no LoRA targets known for {language_model_type!r}: known are {', '.join(LORA_TARGETS)}")
    return rf".*\.{names.language_model}\..*\.({'|'.join(LORA_TARGETS[language_model_type])})"
