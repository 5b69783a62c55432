"""What is computed again in the backward pass, so that a pass fits into memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from transformers import PreTrainedModel

from internvl_chat.model.memory.remaking import keep_little


@dataclass(frozen=True, order=True)
class Recomputation:
    """What is computed again; the larger of two saves more memory.

    Args:
        llm_layers: the language model's first layers, all that is in them.
        tower: the ViT's layers with their adapters, all that is in them.
        cheap: in the language model's other layers, what a few operations an element make, see `remaking`.
    """

    llm_layers: int = 0
    tower: bool = False
    cheap: bool = False

    @classmethod
    def of_layers(cls, llm_layers: int) -> Recomputation:
        """Whole layers alone. A gigabyte buys more time in the language model, so the ViT's go first."""
        return cls(llm_layers, llm_layers > 0)

    @classmethod
    def steps(cls, llm_layers: int) -> Iterator[Recomputation]:
        """From nothing to everything for a language model of so many layers, the fastest first."""
        yield cls()
        yield cls(cheap=True)
        yield cls(tower=True, cheap=True)
        for quarter in sorted({ceil(llm_layers * quarter / 4) for quarter in range(1, 4)} - {llm_layers}):
            yield cls(quarter, tower=True, cheap=True)
        yield cls.of_layers(llm_layers)

    def as_text(self) -> str:
        if self.llm_layers:
            others = ", what is cheap in the others," * self.cheap
            return f"{self.llm_layers} LLM layers{others} computed again"
        parts = ["what is cheap in the LLM"] * self.cheap + ["the ViT"] * self.tower
        return f"{' and '.join(parts) or 'nothing'} computed again"


def recompute(model: PreTrainedModel, again: Recomputation) -> None:
    """Set a captioner up, LoRA in it or not, to compute again what is asked for.

    Raises:
        ValueError: the language model has fewer layers.
    """
    layers = model.model.language_model.layers
    if not 0 <= again.llm_layers <= len(layers):
        raise ValueError(f"cannot recompute {again.llm_layers} layers: the language model has {len(layers)}")
    if again.tower or again.llm_layers:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    for layer in layers[again.llm_layers :]:
        layer.gradient_checkpointing = False
        if again.cheap:
            keep_little(layer)
