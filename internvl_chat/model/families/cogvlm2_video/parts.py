"""CogVLM2-Video's parts by name, and what its configuration says of sizes and of prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from internvl_chat.contracts import UserError
from internvl_chat.model.conversion.weight_files import LazyTensor
from internvl_chat.model.families.cogvlm2_video.configuration import CogVLM2VideoConfig
from internvl_chat.model.part_names import PartNames, TowerSizes

NAMES = PartNames(
    tower="vision_tower",
    projector="multi_modal_projector",
    language_model="language_model",
    tower_layers="blocks",
    tower_lora=("q_proj", "k_proj", "v_proj", "proj", "fc1", "fc2"),
    added=(),
)
FINGERPRINTED = (
    "model.vision_tower.patch_embed.proj.weight",
    "model.language_model.layers.0.self_attn.k_proj.weight",
    "model.language_model.norm.weight",
)
# A norm stands behind each branch: what goes past it would not be zero.
DROP_SLOTS = ()
# Where the original recorded in float32, float64 differs by 1e-4 in the tower and by 6e-4 in the logits, unscaled.
CASE_TOLERANCE = 5e-5
SUPPORTED_FLAGS: Mapping[str, object] = {
    "num_adapter_layers": 0,
    "dynamic_image_size": False,
    "pad2square": False,
    "crop_frames": 0,
}


def placeholder_ids(config: CogVLM2VideoConfig) -> tuple[int, ...]:
    """What stands for a frame's tokens."""
    return (config.image_token_id,)


def tower_sizes(config: CogVLM2VideoConfig) -> TowerSizes:
    """The ViT with its class token; the projector joins four patches a token, and its tokens come with two marks."""
    vision, text = config.vision_config, config.text_config
    seen, width, inner = vision.hidden_size, text.hidden_size, text.intermediate_size
    return TowerSizes(
        layers=vision.num_hidden_layers,
        width=seen,
        inner=vision.intermediate_size,
        patches=1 + vision.patches_per_side**2,
        tokens=config.tokens_per_frame,
        projector_weights=4 * seen**2 + seen * width + 3 * width * inner,
        projector_kept=5 * seen + 3 * width + 4 * inner,
    )


def tokens_per_tile(config: CogVLM2VideoConfig, tile_px: int) -> int:
    """A frame's tokens, its begin and end among them.

    Raises:
        UserError: it has another side than the tower's.
    """
    _check_side(config, tile_px)
    return config.tokens_per_frame


def _check_side(config: CogVLM2VideoConfig, tile_px: int) -> None:
    if tile_px != config.vision_config.image_size:
        raise UserError(f"--force_image_size {tile_px}: expected {config.vision_config.image_size} for this model")


def template_of(config: CogVLM2VideoConfig) -> str | None:
    """Nothing tells: the published checkpoint says `base` and is used with `chat`."""
    return None


def prompt_settings(config: CogVLM2VideoConfig) -> dict[str, Any]:
    """As CogVLM2-Caption is used."""
    return {
        "conv_style": "cogvlm2-chat",
        "force_image_size": config.vision_config.image_size,
        "tokens_per_frame": config.tokens_per_frame,
        "max_num_frame": 24,
        "frame_choice": "chat",
        "normalize_type": "clip",
        "box_adapter": False,
    }


def downsample_ratio(config: CogVLM2VideoConfig) -> None:
    """There is no pixel shuffle."""


def with_tile_side(config: CogVLM2VideoConfig, tile_px: int | None) -> None:
    """Frames have the tower's side.

    Raises:
        UserError: another one is asked for.
    """
    if tile_px is not None:
        _check_side(config, tile_px)


def fit_tables(tensors: dict[str, LazyTensor], expected: Mapping[str, torch.Size]) -> None:
    """Nothing depends on a side that may differ."""


def without_lora(config: CogVLM2VideoConfig) -> None:
    """The original's configuration says nothing of LoRA."""


def note(config: CogVLM2VideoConfig) -> None:
    """Nothing is to be said."""
