"""MiniCPM-V's parts by name, and what its configuration says of sizes and of prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from internvl_chat.contracts import UserError
from internvl_chat.model.families.minicpmv.configuration import MiniCPMVConfig
from internvl_chat.model.part_names import PartNames, TowerSizes

CONV_STYLE = "minicpmv2_5"

NAMES = PartNames(
    tower="vision_tower",
    projector="multi_modal_projector",
    language_model="language_model",
    tower_layers="encoder.layers",
    tower_lora=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    added=(),
)
FINGERPRINTED = (
    "model.multi_modal_projector.query",
    "model.vision_tower.embeddings.patch_embedding.weight",
    "model.language_model.layers.0.self_attn.k_proj.weight",
    "model.language_model.norm.weight",
)
DROP_SLOTS: tuple[str, ...] = ()
CASE_TOLERANCE = 1e-5
SUPPORTED_FLAGS: Mapping[str, object] = {}


def placeholder_ids(config: MiniCPMVConfig) -> tuple[int, ...]:
    """`<unk>`."""
    return (config.image_token_id,)


def tower_sizes(config: MiniCPMVConfig) -> TowerSizes:
    """The tower on a square picture; what the resampler does with its patches is counted to its queries."""
    vision, width = config.vision_config, config.text_config.hidden_size
    patches, queries = (config.scale_resolution // vision.patch_size) ** 2, config.image_seq_length
    keys = patches * (vision.hidden_size * width + 2 * width**2) // queries
    return TowerSizes(
        layers=vision.num_hidden_layers,
        width=vision.hidden_size,
        inner=vision.intermediate_size,
        patches=patches,
        tokens=queries,
        projector_weights=keys + 3 * width**2 + 2 * patches * width,
        projector_kept=patches * (vision.hidden_size + 5 * width) // queries + 6 * width,
    )


def tokens_per_tile(config: MiniCPMVConfig, tile_px: int) -> int:
    """The resampler's queries, whatever the picture's size.

    Raises:
        UserError: the size is less than a patch.
    """
    if tile_px < config.vision_config.patch_size:
        raise UserError(f"--force_image_size {tile_px}: expected at least {config.vision_config.patch_size} pixels")
    return config.image_seq_length


def template_of(config: MiniCPMVConfig) -> str:
    """The only one."""
    return CONV_STYLE


def prompt_settings(config: MiniCPMVConfig) -> dict[str, Any]:
    """Pictures resized as a whole."""
    return {
        "conv_style": CONV_STYLE,
        "force_image_size": config.scale_resolution,
        "tokens_per_frame": config.image_seq_length,
        "normalize_type": "siglip",
    }


def downsample_ratio(config: MiniCPMVConfig) -> None:
    """A resampler has none."""
    return None


def with_tile_side(config: MiniCPMVConfig, tile_px: int | None) -> None:
    """Pictures have as many pixels as a square of this side."""
    config.scale_resolution = tile_px or config.scale_resolution


def fit_tables(tensors: dict[str, Any], expected: Mapping[str, torch.Size]) -> None:
    """Nothing depends on the pictures' size."""


def without_lora(config: MiniCPMVConfig) -> None:
    """The original's configuration does not speak of it."""


def note(config: MiniCPMVConfig) -> None:
    """Nothing."""
    return None
