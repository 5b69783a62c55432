"""InternVL's parts by name, and what its configuration says of sizes and of prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.nn import functional as nnf
from transformers import InternVLConfig

from internvl_chat.contracts import UserError
from internvl_chat.model.controls.region_tokens import numbers_kept
from internvl_chat.model.conversion.weight_files import LazyTensor
from internvl_chat.model.families.internvl.configuration import IntentVCNetConfig
from internvl_chat.model.families.internvl.original import template_of as template_of
from internvl_chat.model.families.internvl.regions import NUM_FUSIONS, SCALES
from internvl_chat.model.part_names import ADAPTERS, USUAL_NAMES, TowerSizes

NAMES = replace(USUAL_NAMES, added=(ADAPTERS, "region_encoder"))
FINGERPRINTED = (
    "model.vision_tower.embeddings.patch_embeddings.projection.weight",
    "model.language_model.layers.0.self_attn.k_proj.weight",
    "model.language_model.layers.0.self_attn.qkv_proj.weight",
    "model.language_model.norm.weight",
)
# Behind them stand a scale per channel and the residual sum, and nothing else.
DROP_SLOTS = ("attention.projection_dropout", "dropout")
CASE_TOLERANCE = 1e-5
# About how many pictures of a sample regions are read from: with --region_tokens 4, the key's among them.
_REGION_PICTURES = 5
SUPPORTED_FLAGS: Mapping[str, object] = {}
_POSITION_TABLE = "model.vision_tower.embeddings.position_embeddings"
# What the config.json of an original checkpoint may say of its tiles.
_TILING = ("dynamic_image_size", "use_thumbnail", "min_dynamic_patch", "max_dynamic_patch", "pad2square")


def placeholder_ids(config: InternVLConfig) -> tuple[int, ...]:
    """`<IMG_CONTEXT>`, and with region tokens their slots'."""
    regions = (config.region_token_id,) if getattr(config, "region_tokens", False) else ()
    return (config.image_token_id, *regions)


def tower_sizes(config: InternVLConfig) -> TowerSizes:
    """The ViT with its class token; the projector sees four patches a token."""
    vision, width = config.vision_config, config.text_config.hidden_size
    grid = [side // patch for side, patch in zip(vision.image_size, vision.patch_size, strict=True)]
    return TowerSizes(
        layers=vision.num_hidden_layers,
        width=vision.hidden_size,
        inner=vision.intermediate_size,
        patches=1 + grid[0] * grid[1],
        tokens=config.image_seq_length,
        projector_weights=4 * vision.hidden_size * width + width**2,
        projector_kept=2 * 4 * vision.hidden_size + 3 * width,
        region_numbers=numbers_kept(_REGION_PICTURES, grid[0] * grid[1], SCALES, vision.hidden_size, NUM_FUSIONS)
        if getattr(config, "region_tokens", False)
        else 0,
    )


def tokens_per_tile(config: InternVLConfig, tile_px: int) -> int:
    """`<IMG_CONTEXT>` tokens of one tile: the patch grid after pixel shuffle.

    Raises:
        UserError: the tile is no whole number of shuffled patches.
    """
    patch_px = config.vision_config.patch_size[0]
    cell_px = round(patch_px / config.downsample_ratio)
    if tile_px % cell_px:
        raise UserError(f"--force_image_size {tile_px}: expected a multiple of {cell_px} pixels for this model")
    return (tile_px // cell_px) ** 2


def prompt_settings(config: InternVLConfig) -> dict[str, Any]:
    """As InternVL's own chat asks: images are cut into up to 12 tiles, where the files do not say otherwise."""
    said = _said(config)
    tile_px = said.get("force_image_size") or config.vision_config.image_size[0]
    tiling = {"dynamic_image_size": True, "use_thumbnail": True, **{k: said[k] for k in _TILING if k in said}}
    return {
        "conv_style": template_of(config) or "internvl2_5",
        "force_image_size": tile_px,
        "tokens_per_frame": tokens_per_tile(config, tile_px),
        **tiling,
    }


def _said(config: InternVLConfig) -> dict[str, Any]:
    return dict((getattr(config, "original", None) or {}).get("config", {}))


def downsample_ratio(config: InternVLConfig) -> float:
    """Of the pixel shuffle before the projector."""
    return float(config.downsample_ratio)


def with_tile_side(config: IntentVCNetConfig, tile_px: int | None) -> None:
    """Set the tile's side; the position table is resized to it when the weights are read.

    Raises:
        UserError: the box adapters' norm works at one size only.
    """
    tile_px = tile_px or _said(config).get("force_image_size")
    vision = config.vision_config
    if not tile_px or list(vision.image_size) == [tile_px] * 2:
        return
    if vision.num_adapter_layers and vision.adapter_norm == "spatial":
        raise UserError(
            f"force_image_size {tile_px}: the box adapters of this checkpoint normalise over the patches of a "
            f"{vision.image_size[0]} pixel tile; expected {vision.image_size[0]}"
        )
    vision.image_size = [tile_px] * 2
    config.image_seq_length = int(tile_px // vision.patch_size[0] * config.downsample_ratio) ** 2


def fit_tables(tensors: dict[str, LazyTensor], expected: Mapping[str, torch.Size]) -> None:
    """Resize the ViT's position table to the configuration's tile."""
    table, shape = tensors.get(_POSITION_TABLE), expected[_POSITION_TABLE]
    if table is not None and len(table.shape) == 3 and table.shape[1] != shape[1] and table.shape[2] == shape[2]:
        tensors[_POSITION_TABLE] = table.map(shape, partial(resize_positions, num_positions=shape[1]))


def resize_positions(table: torch.Tensor, num_positions: int) -> torch.Tensor:
    """Resize a ViT's position table to another square grid, bicubic, in at least fp32.

    Args:
        table: [1, 1 + side * side, C], the class token's first.
        num_positions: 1 + new side * new side.
    Returns:
        [1, num_positions, C], same dtype.
    """
    old, new = (round((count - 1) ** 0.5) for count in (table.shape[1], num_positions))
    wide = table[:, 1:].to(torch.promote_types(table.dtype, torch.float32))
    grid = wide.transpose(1, 2).unflatten(2, (old, old))
    resized = nnf.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1], resized.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)


def without_lora(config: InternVLConfig) -> None:
    """The original says it by two ranks."""
    if getattr(config, "original", None):
        config.original["config"] |= {"use_llm_lora": 0, "use_backbone_lora": 0}


def note(config: IntentVCNetConfig) -> str | None:
    """That box adapters of the original's are not computed as ours are."""
    if config.vision_config.num_adapter_layers and config.vision_config.adapter_norm == "spatial":
        return "its box adapters normalise over space, as the original code does; this is kept for these weights"
    return None
