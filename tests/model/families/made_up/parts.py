"""Its parts by name, and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from internvl_chat.model.part_names import USUAL_NAMES, TowerSizes

NAMES = replace(USUAL_NAMES, tower_layers="encoder.layers", added=())
FINGERPRINTED = ("model.language_model.norm.weight",)
DROP_SLOTS: tuple[str, ...] = ()
CASE_TOLERANCE = 1e-5
SUPPORTED_FLAGS: Mapping[str, object] = {}


def placeholder_ids(config: Any) -> tuple[int, ...]:
    return (config.image_token_id,)


def tower_sizes(config: Any) -> TowerSizes:
    vision, width = config.vision_config, config.text_config.hidden_size
    patches = (vision.image_size // vision.patch_size) ** 2
    return TowerSizes(
        vision.num_hidden_layers, vision.hidden_size, vision.intermediate_size, patches + 1, patches, width**2, width
    )


def tokens_per_tile(config: Any, tile_px: int) -> int:
    return tower_sizes(config).tokens


def template_of(config: Any) -> str:
    return "made_up_chat"


def prompt_settings(config: Any) -> dict[str, Any]:
    side_px = config.vision_config.image_size
    return {
        "conv_style": "made_up_chat",
        "force_image_size": side_px,
        "tokens_per_frame": tokens_per_tile(config, side_px),
        "normalize_type": "clip",
    }


def downsample_ratio(config: Any) -> None:
    return None


def with_tile_side(config: Any, tile_px: int | None) -> None:
    return None


def fit_tables(tensors: dict[str, Any], expected: Mapping[str, torch.Size]) -> None:
    return None


def without_lora(config: Any) -> None:
    return None


def note(config: Any) -> None:
    return None
