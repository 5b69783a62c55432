"""Artemis' parts by name, and what its configuration says of sizes and of prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from internvl_chat.contracts import UserError
from internvl_chat.model.controls.region_tokens import numbers_kept
from internvl_chat.model.conversion.weight_files import LazyTensor
from internvl_chat.model.families.artemis.configuration import MAX_VIDEO_FRAMES, ArtemisConfig
from internvl_chat.model.part_names import USUAL_NAMES, TowerSizes

NAMES = replace(
    USUAL_NAMES,
    tower_layers="encoder.layers",
    tower_lora=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    added=("region_encoder",),
)
FINGERPRINTED = (
    "model.vision_tower.embeddings.patch_embedding.weight",
    "model.language_model.layers.0.self_attn.k_proj.weight",
    "model.language_model.norm.weight",
)
# CLIP has no dropout behind its branches.
DROP_SLOTS: tuple[str, ...] = ()
CASE_TOLERANCE = 1e-5
SUPPORTED_FLAGS: Mapping[str, object] = {}
TEMPLATE = "vicuna_v1"
# Of an object's track, beside its key frame.
REGION_TOKENS = 4
# Frames that clustering is offered for each of them.
CANDIDATES_PER_SLOT = 2


def placeholder_ids(config: ArtemisConfig) -> tuple[int, ...]:
    """Of pictures, videos and regions."""
    return (config.image_token_id, config.video_token_id, config.region_token_id)


def tower_sizes(config: ArtemisConfig) -> TowerSizes:
    """CLIP with its class token; the projector sees each patch of a picture, and a video's pooled tokens."""
    vision, width = config.vision_config, config.text_config.hidden_size
    return TowerSizes(
        layers=vision.num_hidden_layers,
        width=vision.hidden_size,
        inner=vision.intermediate_size,
        patches=1 + config.image_seq_length,
        tokens=config.image_seq_length,
        projector_weights=vision.hidden_size * width + width**2,
        projector_kept=vision.hidden_size + 3 * width,
        whole_video=(MAX_VIDEO_FRAMES, config.video_seq_length),
        region_numbers=_region_numbers(config) if config.region_tokens else 0,
    )


def _region_numbers(config: ArtemisConfig) -> int:
    """Of the key picture and two for each slot."""
    pictures = 1 + CANDIDATES_PER_SLOT * REGION_TOKENS
    channels = config.vision_config.hidden_size
    return numbers_kept(pictures, config.image_seq_length, config.region_scales, channels, config.region_fusions)


def tokens_per_tile(config: ArtemisConfig, tile_px: int) -> int:
    """One a patch.

    Raises:
        UserError: the tower sees another side.
    """
    if tile_px != config.vision_config.image_size:
        raise UserError(f"--force_image_size {tile_px}: expected {config.vision_config.image_size} for this model")
    return config.image_seq_length


def template_of(config: ArtemisConfig) -> str:
    """Vicuna's."""
    return TEMPLATE


def prompt_settings(config: ArtemisConfig) -> dict[str, Any]:
    """CLIP's pixels, a hundred frames of a video, which all go into its pooled tokens, and four of a track.

    Before stage 3 there is nothing that reads a track.
    """
    return {
        "conv_style": TEMPLATE,
        "force_image_size": config.vision_config.image_size,
        "tokens_per_frame": config.image_seq_length,
        "normalize_type": "clip",
        "min_num_frame": MAX_VIDEO_FRAMES,
        "max_num_frame": MAX_VIDEO_FRAMES,
        "region_tokens": REGION_TOKENS if config.region_tokens else 0,
    }


def downsample_ratio(config: ArtemisConfig) -> None:
    """There is no pixel shuffle."""
    return None


def with_tile_side(config: ArtemisConfig, tile_px: int | None) -> None:
    """The tower has one side.

    Raises:
        UserError: another is asked for.
    """
    if tile_px is not None:
        tokens_per_tile(config, tile_px)


def fit_tables(tensors: dict[str, LazyTensor], expected: Mapping[str, torch.Size]) -> None:
    """Nothing depends on the tile's side."""


def without_lora(config: ArtemisConfig) -> None:
    """The original's config.json does not speak of it."""


def note(config: ArtemisConfig) -> None:
    """Nothing."""
    return None
