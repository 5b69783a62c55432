"""Idefics3's parts by name, and what its configuration says of sizes and of prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import Idefics3Config

from internvl_chat.contracts import UserError
from internvl_chat.model.part_names import PartNames, TowerSizes

NAMES = PartNames(
    tower="vision_model",
    projector="connector",
    language_model="text_model",
    tower_layers="encoder.layers",
    tower_lora=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    added=(),
)
FINGERPRINTED = (
    "model.vision_model.embeddings.patch_embedding.weight",
    "model.text_model.layers.0.self_attn.k_proj.weight",
    "model.text_model.norm.weight",
)
# SigLIP's layers have no dropout of their own.
DROP_SLOTS: tuple[str, ...] = ()
CASE_TOLERANCE = 1e-5
SUPPORTED_FLAGS: Mapping[str, object] = {}
# The processor brings a picture's longer side to four tiles, so that it is cut into 16 at most.
_MOST_TILES = 16


def placeholder_ids(config: Idefics3Config) -> tuple[int, ...]:
    """`<image>`."""
    return (config.image_token_id,)


def tower_sizes(config: Idefics3Config) -> TowerSizes:
    """SigLIP without a class token; the connector is one matrix over `scale_factor` x `scale_factor` patches."""
    vision, width = config.vision_config, config.text_config.hidden_size
    shuffled = vision.hidden_size * config.scale_factor**2
    patches = (vision.image_size // vision.patch_size) ** 2
    return TowerSizes(
        layers=vision.num_hidden_layers,
        width=vision.hidden_size,
        inner=vision.intermediate_size,
        patches=patches,
        tokens=patches // config.scale_factor**2,
        projector_weights=shuffled * width,
        projector_kept=shuffled + width,
    )


def tokens_per_tile(config: Idefics3Config, tile_px: int) -> int:
    """`<image>` tokens of a tile.

    Raises:
        UserError: the tile has another side than the checkpoint's.
    """
    _check_side(config, tile_px)
    return tower_sizes(config).tokens


def template_of(config: Idefics3Config) -> str:
    """There is one."""
    return "idefics3"


def prompt_settings(config: Idefics3Config) -> dict[str, Any]:
    """As its own processor shows pictures: cut into tiles, with the whole picture at the end."""
    tile_px = config.vision_config.image_size
    return {
        "conv_style": "idefics3",
        "force_image_size": tile_px,
        "tokens_per_frame": tokens_per_tile(config, tile_px),
        "dynamic_image_size": True,
        "use_thumbnail": True,
        "max_dynamic_patch": _MOST_TILES,
        "normalize_type": "siglip",
    }


def downsample_ratio(config: Idefics3Config) -> float:
    """Of the pixel shuffle before the connector."""
    return 1 / config.scale_factor


def with_tile_side(config: Idefics3Config, tile_px: int | None) -> None:
    """Nothing to set.

    Raises:
        UserError: the tile has another side than the checkpoint's.
    """
    if tile_px is not None:
        _check_side(config, tile_px)


def _check_side(config: Idefics3Config, tile_px: int) -> None:
    own_px = config.vision_config.image_size
    if tile_px != own_px:
        raise UserError(f"--force_image_size {tile_px}: this model sees tiles of {own_px} pixels, expected {own_px}")


def fit_tables(tensors: dict[str, Any], expected: Mapping[str, torch.Size]) -> None:
    """Nothing depends on a tile's side."""


def without_lora(config: Idefics3Config) -> None:
    """The configuration says nothing of LoRA."""


def note(config: Idefics3Config) -> None:
    """Nothing to be said."""
