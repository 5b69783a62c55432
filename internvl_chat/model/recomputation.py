"""Which layers compute their inside again in the backward pass, so that a pass fits into memory."""

from __future__ import annotations

from transformers import PreTrainedModel


def recompute_layers(model: PreTrainedModel, num_llm_layers: int) -> None:
    """Recompute the ViT's layers with their adapters, and the first layers of the language model.

    The language model's other layers keep what their backward pass needs. A gigabyte buys more time there than in the
    ViT, so the ViT goes first: it keeps its insides only where nothing is recomputed.

    Args:
        num_llm_layers: how many layers of the language model recompute; with 0 nothing does.
    Raises:
        ValueError: the language model has fewer layers.
    """
    layers = model.model.language_model.layers
    if not 0 <= num_llm_layers <= len(layers):
        raise ValueError(f"cannot recompute {num_llm_layers} layers: the language model has {len(layers)}")
    if not num_llm_layers:
        return
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for layer in layers[num_llm_layers:]:
        layer.gradient_checkpointing = False
