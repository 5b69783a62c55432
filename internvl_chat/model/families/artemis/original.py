"""Checkpoints as Artemis' training leaves them: names, configuration, and the parts of each stage put together.

start     a config.json that names Vicuna and the tower, see `start.py`
stage 1   mm_projector.bin beside a config.json, on Vicuna
stage 2   a complete model, or all but the tower
stage 3   adapter_model.* and non_lora_trainables.bin beside a config.json, on stage 2
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPVisionConfig, LlamaConfig

from internvl_chat.constants import BOX_SCALE
from internvl_chat.contracts import UserError
from internvl_chat.model.controls.region_tokens import KEY_ROLE, TRACK_ROLE
from internvl_chat.model.conversion.weight_files import LazyTensor, stored_weights
from internvl_chat.model.families.artemis.configuration import ArtemisConfig
from internvl_chat.model.families.artemis.names import TOWER_PREFIX
from internvl_chat.model.families.artemis.names import to_native as to_native
from internvl_chat.model.families.artemis.names import weight_map as weight_map
from internvl_chat.model.families.artemis.stages import (
    START_FIELD,
    drawn_projector,
    has_regions,
    is_start,
    open_stage,
)
from internvl_chat.vision import Vision

HAS_ORIGINAL_LAYOUT = True
ORIGINAL_MODEL_TYPE = "llava"
# What stands for a video and for a region in the original's ids.
ORIGINAL_VIDEO_ID, ORIGINAL_REGION_ID = -200, -500
_LARGE_CLIP = "openai/clip-vit-large-patch14"
# Of that tower, so that its folder is needed for weights alone.
_LARGE_CLIP_GEOMETRY = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "projection_dim": 768,
}
_PROJECTOR_KIND = "mlp2x_gelu"


def is_original(fields: Mapping[str, Any]) -> bool:
    """Whether a config.json is one that Artemis' own training wrote."""
    return fields.get("model_type") == ORIGINAL_MODEL_TYPE and "mm_image_tower" in fields


def hub_to_native(name: str) -> str:
    """The files that are written here have the names in memory."""
    return name


def native_to_hub(name: str) -> str:
    """The way back."""
    return name


def hub_config(config: ArtemisConfig, is_plain: bool) -> dict[str, Any]:
    """What config.json says beside the original's layout."""
    return json.loads(config.to_json_string()) | {"architectures": ["ArtemisForConditionalGeneration"]}


def language_model_kind(config: ArtemisConfig) -> str:
    """Llama, by way of Vicuna."""
    return config.text_config.model_type


def case_inputs(case: Mapping[str, torch.Tensor], config: ArtemisConfig) -> tuple[torch.Tensor, Vision]:
    """A recorded case's ids with a slot for every token of its video, and its tensors: a box a tile, the key first."""
    ids: list[int] = []
    for token in case["input_ids"][0].tolist():
        if token == ORIGINAL_VIDEO_ID:
            ids += [config.video_token_id] * config.video_seq_length
        else:
            ids.append(config.region_token_id if token == ORIGINAL_REGION_ID else token)
    count = len(case["boxes"])
    roles = torch.tensor([[KEY_ROLE], *[[TRACK_ROLE]] * (count - 1)])
    vision = {
        "pixel_values": case["images"].float(),
        "video_features": case["video_features"],
        "region_boxes": case["boxes"][:, None] * BOX_SCALE,
        "region_roles": roles,
        "region_slots": torch.tensor([[count], *[[-1]] * (count - 1)]),
    }
    return torch.tensor([ids]), vision


def native_config(fields: Mapping[str, Any], folder: Path) -> ArtemisConfig:
    """The native configuration of an original config.json.

    Args:
        fields: its content.
        folder: where it lies.
    Raises:
        UserError: it names another projector, or a tower whose geometry is not known here.
    """
    where = folder / "config.json"
    kind = fields.get("mm_projector_type", _PROJECTOR_KIND)
    if kind != _PROJECTOR_KIND:
        raise UserError(f"{where}: mm_projector_type is {kind!r}: Artemis has {_PROJECTOR_KIND!r}")
    known = {field.name for field in dataclasses.fields(LlamaConfig)} - {"transformers_version", "architectures"}
    text = {name: value for name, value in fields.items() if name in known and value is not None}
    return ArtemisConfig(
        vision_config=tower_config(fields.get("mm_image_tower") or _LARGE_CLIP, where),
        text_config=LlamaConfig(**text),
        vision_feature_layer=fields.get("mm_vision_select_layer", -2),
        tie_word_embeddings=bool(fields.get("tie_word_embeddings", False)),
        region_tokens=has_regions(folder),
        original={"config": {k: copy.deepcopy(v) for k, v in fields.items() if k != START_FIELD}},
    )


def tower_config(name: str, where: Path) -> CLIPVisionConfig:
    """The geometry of the CLIP tower that an original config.json names.

    Raises:
        UserError: it is neither the published one nor a folder.
    """
    folder = Path(name)
    if (folder / "config.json").is_file():
        fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if fields.get("model_type") == CLIPConfig.model_type:
            fields = fields["vision_config"]
        return CLIPVisionConfig(**{k: v for k, v in fields.items() if k != "model_type"})
    if name == _LARGE_CLIP:
        return CLIPVisionConfig(**_LARGE_CLIP_GEOMETRY)
    raise UserError(
        f"{where}: mm_image_tower is {name!r}, which is no folder here; expected {_LARGE_CLIP!r} or the tower's folder"
    )


def original_config(config: ArtemisConfig) -> dict[str, Any]:
    """The content of an original config.json for a native configuration."""
    if config.original:
        return copy.deepcopy(config.original["config"])
    text = {k: v for k, v in config.text_config.to_dict().items() if v is not None and k != "rope_parameters"}
    return text | {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": ORIGINAL_MODEL_TYPE,
        "rope_theta": config.text_config.rope_parameters["rope_theta"],
        "mm_hidden_size": config.vision_config.hidden_size,
        "mm_image_tower": _LARGE_CLIP,
        "mm_projector_type": _PROJECTOR_KIND,
        "mm_use_bbox_token": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": config.vision_feature_layer,
    }


def open_original(folder: Path, config: ArtemisConfig, base_path: str | None = None) -> dict[str, LazyTensor]:
    """The native tensors of a stage's checkpoint with those of its base and of CLIP, LoRA folded in; none is read.

    Args:
        config: names the tower's folder, where the tower is not among the tensors.
        base_path: folder of what the checkpoint was trained on, where it holds only a part and does not say, or that
            was moved: Vicuna, or an earlier stage's checkpoint.
    Raises:
        UserError: the base is missing or of another width, or the tower is nowhere.
    """
    tensors = open_stage(folder, base_path)
    if not any(name.startswith(TOWER_PREFIX) for name in tensors):
        tower = Path((config.original or {})["config"].get("mm_image_tower") or _LARGE_CLIP)
        if not tower.is_dir():
            raise UserError(
                f"{folder}: its tensors lack the tower, {tower}, which is no folder: write the tower's folder into its "
                "config.json as mm_image_tower"
            )
        tensors |= open_tower(tower)
    if is_start(folder):
        tensors |= drawn_projector(config)
    return tensors


def open_tower(folder: Path) -> dict[str, LazyTensor]:
    """The native tensors of a CLIP checkpoint's vision half.

    Raises:
        UserError: the folder has none.
    """
    prefix = "vision_model."
    tensors = {
        TOWER_PREFIX + name.removeprefix(prefix): tensor
        for name, tensor in stored_weights(folder).items()
        if name.startswith(prefix)
    }
    if not tensors:
        raise UserError(f"{folder}: holds no CLIP vision tower: expected tensors named {prefix}*")
    return tensors
