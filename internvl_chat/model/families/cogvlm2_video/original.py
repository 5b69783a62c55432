"""The original layout of CogVLM2-Video, `CogVLMVideoForCausalLM`: its configuration and its tensors' names.

The checkpoint keeps the old names of CogVLM's experts, but there is one expert only: every layer is Llama's.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig

from internvl_chat.contracts import UserError
from internvl_chat.families.clip_frames import frame_pixels
from internvl_chat.model.conversion.token_files import added_token_ids
from internvl_chat.model.conversion.weight_files import LazyTensor, stored_weights
from internvl_chat.model.conversion.weight_map import FusedRows, Rule, WeightMap
from internvl_chat.model.families.cogvlm2_video.configuration import CogVLM2VideoConfig
from internvl_chat.vision import Vision

HAS_ORIGINAL_LAYOUT = True
ARCHITECTURE = "CogVLMVideoForCausalLM"
# Stands for frames in prompts, see `data/families/cogvlm2_video.py`; files without a tokenizer have the padding there.
_IMAGE_TOKEN = "<|reserved_special_token_1|>"
# Llama 3's; the original's config.json does not say it.
_ROPE_THETA = 500000.0

# Fields: original name -> native name.
_TEXT_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "num_multi_query_heads": "num_key_value_heads",
    "hidden_act": "hidden_act",
    "max_position_embeddings": "max_position_embeddings",
    "rms_norm_eps": "rms_norm_eps",
    "initializer_range": "initializer_range",
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "pad_token_id": "pad_token_id",
}
_VISION_FIELDS = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "in_channels": "num_channels",
    "image_size": "image_size",
    "patch_size": "patch_size",
    "layer_norm_eps": "layer_norm_eps",
}
# What a native model of this family computes, whatever a file says.
_FIXED = {"hidden_act": "silu", "tie_word_embeddings": False}
_FIXED_VISION = {"hidden_act": "gelu"}

_TOWER = {
    "patch_embedding.proj": "patch_embed.proj",
    "transformer.layers.{n}.attention.dense": "blocks.{n}.attn.proj",
    "transformer.layers.{n}.input_layernorm": "blocks.{n}.norm1",
    "transformer.layers.{n}.mlp.fc1": "blocks.{n}.mlp.fc1",
    "transformer.layers.{n}.mlp.fc2": "blocks.{n}.mlp.fc2",
    "transformer.layers.{n}.post_attention_layernorm": "blocks.{n}.norm2",
}
_TOWER_TABLES = {
    "patch_embedding.cls_embedding": "cls_token",
    "patch_embedding.position_embedding.weight": "pos_embed",
}
_PROJECTOR = {
    "conv": "downsample",
    "linear_proj.linear_proj": "linear",
    "linear_proj.norm1": "norm",
    "linear_proj.gate_proj": "gate_proj",
    "linear_proj.dense_h_to_4h": "up_proj",
    "linear_proj.dense_4h_to_h": "down_proj",
    "boi": "begin_of_frame",
    "eoi": "end_of_frame",
}
_LAYER = {
    "self_attn.language_expert_dense": "self_attn.o_proj",
    "mlp.language_mlp": "mlp",
    "input_layernorm": "input_layernorm",
    "post_attention_layernorm": "post_attention_layernorm",
}


def is_original(fields: Mapping[str, Any]) -> bool:
    """Whether a config.json is in the original layout, which names an architecture and no `model_type`."""
    return fields.get("model_type") != CogVLM2VideoConfig.model_type


def native_config(fields: dict[str, Any], folder: Path) -> CogVLM2VideoConfig:
    """The native configuration of an original config.json.

    Args:
        fields: its content.
        folder: where it lies; the tokenizer's files beside it tell the id of what stands for frames.
    Raises:
        UserError: a field is missing, or is one that the native model cannot follow.
    """
    where = folder / "config.json"
    vision = fields.get("vision_config")
    if not isinstance(vision, dict):
        raise UserError(f"{where}: has no vision_config, which a config.json of {ARCHITECTURE} has")
    for part, fixed in ((fields, _FIXED), (vision, _FIXED_VISION)):
        for name, value in fixed.items():
            if part.get(name, value) != value:
                raise UserError(f"{where}: {name} is {part[name]!r}: only {value!r} is computed here")
    missing = [name for name in _TEXT_FIELDS if name not in fields]
    missing += [f"vision_config.{name}" for name in _VISION_FIELDS if name not in vision]
    if missing:
        raise UserError(f"{where}: lacks {', '.join(missing)}, which a config.json of {ARCHITECTURE} has")
    return CogVLM2VideoConfig(
        vision_config={native: vision[name] for name, native in _VISION_FIELDS.items()},
        text_config={
            **{native: fields[name] for name, native in _TEXT_FIELDS.items()},
            "model_type": LlamaConfig.model_type,
            "rope_parameters": {"rope_type": "default", "rope_theta": float(fields.get("rope_theta", _ROPE_THETA))},
        },
        image_token_id=added_token_ids(folder).get(_IMAGE_TOKEN, fields["pad_token_id"]),
        original={"config": copy.deepcopy(fields)},
    )


def original_config(config: CogVLM2VideoConfig) -> dict[str, Any]:
    """The content of an original config.json for a native configuration."""
    if config.original:
        return copy.deepcopy(config.original["config"])
    text, vision = config.text_config, config.vision_config
    rope_theta = text.rope_parameters["rope_theta"]
    return {
        "architectures": [ARCHITECTURE],
        **{name: getattr(text, native) for name, native in _TEXT_FIELDS.items()},
        **({} if rope_theta == _ROPE_THETA else {"rope_theta": rope_theta}),
        "template_version": "chat",
        "tie_word_embeddings": False,
        "use_cache": True,
        "vision_config": {
            **{name: getattr(vision, native) for name, native in _VISION_FIELDS.items()},
            **_FIXED_VISION,
            "dropout_prob": 0.0,
            "num_positions": vision.patches_per_side**2 + 1,
        },
    }


def weight_map(config: CogVLM2VideoConfig) -> WeightMap:
    """The table of names for a model of this configuration."""
    return WeightMap(_weight_rules(config))


def _weight_rules(config: CogVLM2VideoConfig) -> list[Rule]:
    """Every tensor's module in both layouts."""
    seen, tower = "model.vision.", "model.vision_tower."
    layer, block = "model.layers.{n}.", "model.language_model.layers.{n}."
    return [
        *(Rule(seen + a, (tower + b,)) for a, b in _TOWER.items()),
        *(Rule(seen + a, (tower + b,), leading=True) for a, b in _TOWER_TABLES.items()),
        Rule(
            seen + "transformer.layers.{n}.attention.query_key_value",
            tuple(f"{tower}blocks.{{n}}.attn.{part}_proj" for part in "qkv"),
            fused=FusedRows(groups=1, heads_per_group=1, head_dim=config.vision_config.hidden_size),
        ),
        *(Rule(seen + a, (f"model.multi_modal_projector.{b}",)) for a, b in _PROJECTOR.items()),
        Rule("model.embed_tokens", ("model.language_model.embed_tokens",)),
        Rule("model.norm", ("model.language_model.norm",)),
        Rule("lm_head", ("lm_head",)),
        *(Rule(layer + a, (block + b,)) for a, b in _LAYER.items()),
        Rule(
            layer + "self_attn.language_expert_query_key_value",
            tuple(f"{block}self_attn.{part}_proj" for part in "qkv"),
            fused=_stacked(config.text_config),
        ),
    ]


def _stacked(text: LlamaConfig) -> FusedRows:
    """All q heads, then all k heads, then all v heads: one group, whose "head" is as high as all of k."""
    heads, shared = text.num_attention_heads, text.num_key_value_heads
    return FusedRows(groups=1, heads_per_group=heads // shared, head_dim=shared * text.head_dim)


def hub_to_native(name: str) -> str:
    """The same: transformers has no model of this family, so that files in its layout have the names in memory."""
    return name


def native_to_hub(name: str) -> str:
    """The same."""
    return name


def hub_config(config: CogVLM2VideoConfig, is_plain: bool) -> dict[str, Any]:
    """The native configuration."""
    fields: dict[str, Any] = json.loads(config.to_json_string())
    return {**fields, "architectures": ["CogVLM2VideoForConditionalGeneration"]}


def language_model_kind(config: CogVLM2VideoConfig) -> str:
    """Llama 3, under the original's old names."""
    return config.text_config.model_type


def case_inputs(case: Mapping[str, torch.Tensor], config: CogVLM2VideoConfig) -> tuple[torch.Tensor, Vision]:
    """The frames of `video` [3, F, H, W] uint8, prepared.

    Raises:
        UserError: the case has no video, or its frames are not where its token types say.
    """
    absent = [name for name in ("video", "token_type_ids") if name not in case]
    if absent:
        raise UserError(f"the case lacks {', '.join(absent)}")
    if not torch.equal(case["input_ids"] == config.image_token_id, case["token_type_ids"] == 1):
        raise UserError(f"token_type_ids are not 1 exactly where input_ids are {config.image_token_id}")
    frames = case["video"].unbind(1)
    return case["input_ids"], {"pixel_values": frame_pixels(frames, config.vision_config.image_size)}


def open_original(folder: Path, config: CogVLM2VideoConfig, base_path: str | None) -> dict[str, LazyTensor]:
    """The native tensors of an original folder, which is always complete.

    Raises:
        UserError: they cannot be read, or are not the family's.
    """
    return weight_map(config).to_native(stored_weights(folder))
