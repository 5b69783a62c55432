"""Its configuration: LLaVA's own, and which base a training checkpoint belongs to."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, LlavaConfig


class MadeUpConfig(LlavaConfig):
    model_type = "made_up"

    base_model_name_or_path: str | None = None
    base_fingerprint: str | None = None
    num_added_tokens: int = 0
    original: dict[str, Any] | None = None


def captioner_config(base: MadeUpConfig, num_adapter_layers: int) -> MadeUpConfig:
    return base


def num_adapters(config: MadeUpConfig) -> int:
    return 0


AutoConfig.register(MadeUpConfig.model_type, MadeUpConfig)
