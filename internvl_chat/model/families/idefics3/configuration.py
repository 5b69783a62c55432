"""Configuration: transformers' own, and which base a training checkpoint belongs to."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, Idefics3Config

from internvl_chat.contracts import UserError

OUR_FIELDS = ("base_model_name_or_path", "base_fingerprint", "num_added_tokens", "original")


class Idefics3CaptionerConfig(Idefics3Config):
    """Idefics3 as it is trained here.

    Args:
        base_model_name_or_path, base_fingerprint, num_added_tokens: as `IntentVCNetConfig` has them.
        original: always None: transformers' layout is the original's.
    """

    model_type = "intentvcnet_idefics3"

    base_model_name_or_path: str | None = None
    base_fingerprint: str | None = None
    num_added_tokens: int = 0
    original: dict[str, Any] | None = None


def captioner_config(base: Idefics3Config, num_adapter_layers: int) -> Idefics3CaptionerConfig:
    """The configuration of the model that is trained on `base`.

    Raises:
        UserError: box adapters are asked for.
    """
    if num_adapter_layers:
        raise UserError(
            f"--num_adapter_layers {num_adapter_layers}: Idefics3 has no place for box adapters; "
            "give --num_adapter_layers 0 and another control"
        )
    config = base if isinstance(base, Idefics3CaptionerConfig) else Idefics3CaptionerConfig(**_fields(base))
    # Training switches it off, and saves that; whoever loads the model anew may want to ask it.
    config.use_cache = True
    return config


def num_adapters(config: Idefics3Config) -> int:
    """None."""
    return 0


def _fields(config: Idefics3Config) -> dict[str, Any]:
    dropped = ("model_type", "architectures", "transformers_version")
    return {k: v for k, v in config.to_dict().items() if k not in dropped and not k.startswith("_")}


AutoConfig.register(Idefics3CaptionerConfig.model_type, Idefics3CaptionerConfig)
