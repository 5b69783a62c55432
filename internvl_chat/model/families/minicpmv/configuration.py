"""Configuration: LLaVA's own fields with Idefics2's vision tower and Llama, plus the resampler between them."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, LlavaConfig

from internvl_chat.contracts import UserError


class MiniCPMVConfig(LlavaConfig):
    """MiniCPM-Llama3-V 2.5.

    Args:
        image_token_index: id of the token that stands for a picture's embeddings, `<unk>`.
        image_seq_length: embeddings of a picture, the resampler's queries.
        scale_resolution: side of the square that a picture has as many pixels as, after it was resized.
        base_model_name_or_path, base_fingerprint, num_added_tokens, original: as in `IntentVCNetConfig`.
    """

    model_type = "minicpmv2_5"

    image_seq_length: int = 96
    scale_resolution: int = 448
    base_model_name_or_path: str | None = None
    base_fingerprint: str | None = None
    num_added_tokens: int = 0
    original: dict[str, Any] | None = None


def captioner_config(base: MiniCPMVConfig, num_adapter_layers: int) -> MiniCPMVConfig:
    """`base` itself.

    Raises:
        UserError: box adapters are asked for.
    """
    if num_adapter_layers:
        raise UserError(
            f"--num_adapter_layers {num_adapter_layers}: MiniCPM-V's pictures have grids of their own, which no box "
            "adapter was made for; give --num_adapter_layers 0"
        )
    return base


def num_adapters(config: MiniCPMVConfig) -> int:
    """None."""
    return 0


AutoConfig.register(MiniCPMVConfig.model_type, MiniCPMVConfig)
