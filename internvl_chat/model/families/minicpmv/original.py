"""MiniCPM-Llama3-V 2.5's own files: `llm.*`, `vpm.*` and `resampler.*`, and one config.json for Llama and the rest."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import Idefics2Config, LlamaConfig
from transformers.models.idefics2.configuration_idefics2 import Idefics2VisionConfig

from internvl_chat.contracts import UserError
from internvl_chat.model.conversion.weight_files import LazyTensor, stored_weights
from internvl_chat.model.conversion.weight_map import FusedRows, Rule, WeightMap
from internvl_chat.model.families.minicpmv.configuration import MiniCPMVConfig
from internvl_chat.vision import Vision

HAS_ORIGINAL_LAYOUT = True
ORIGINAL_MODEL_TYPE = "minicpmv"
VERSION = "2.5"
_PROJECTOR = "model.multi_modal_projector"
# The tower as published: SigLIP so400m with 14-pixel patches and positions for 980 pixels.
_TOWER = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 980,
    "patch_size": 14,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
# `<unk>` of Llama 3's vocabulary as MiniCPM-V extends it, where no tokenizer tells.
_UNK_ID = 128002
_TOKEN_FILE = "tokenizer.json"
_IMAGE_TOKEN = "<unk>"
_MODULES = {
    "resampler.query": "query",
    "resampler.kv_proj": "kv_proj",
    "resampler.ln_kv": "kv_norm",
    "resampler.ln_q": "query_norm",
    "resampler.ln_post": "post_norm",
    "resampler.proj": "proj",
    "resampler.attn.out_proj": "out_proj",
}


def is_original(fields: Mapping[str, Any]) -> bool:
    """Whether a config.json is in the original layout."""
    return fields.get("model_type") == ORIGINAL_MODEL_TYPE


def native_config(fields: dict[str, Any], folder: Path) -> MiniCPMVConfig:
    """The native configuration of an original config.json.

    Raises:
        UserError: it is another version of MiniCPM-V, whose parts are others.
    """
    version = str(fields.get("version", VERSION))
    if version != VERSION:
        raise UserError(
            f"{folder / 'config.json'}: is MiniCPM-V {version}: expected {VERSION}, other versions have other parts"
        )
    known = {field.name for field in dataclasses.fields(LlamaConfig)} - {
        "transformers_version",
        "architectures",
        "dtype",
    }
    text = {name: value for name, value in fields.items() if name in known and value is not None}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": float(fields.get("rope_theta", 10000.0))}
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        text.setdefault(name, None)
    tower = {**_TOWER, **{k: v for k, v in fields.get("vision_config", {}).items() if k in _TOWER}}
    tower["num_hidden_layers"] -= bool(fields.get("drop_vision_last_layer", False))
    return MiniCPMVConfig(
        vision_config=Idefics2VisionConfig(**tower),
        text_config=LlamaConfig(**text),
        image_token_index=_token_id(folder),
        image_seq_length=fields.get("query_num", 96),
        scale_resolution=fields.get("slice_config", {}).get("scale_resolution", 448),
        tie_word_embeddings=bool(fields.get("tie_word_embeddings", False)),
        original={"config": copy.deepcopy(fields)},
    )


def _token_id(folder: Path) -> int:
    path = folder / _TOKEN_FILE
    if not path.is_file():
        return _UNK_ID
    content = json.loads(path.read_text(encoding="utf-8"))
    ids = {token["content"]: token["id"] for token in content.get("added_tokens", [])}
    return ids.get(_IMAGE_TOKEN, _UNK_ID)


def original_config(config: MiniCPMVConfig) -> dict[str, Any]:
    """The content of an original config.json for a native configuration."""
    if config.original:
        return copy.deepcopy(config.original["config"])
    text, vision = config.text_config, config.vision_config
    llm = {k: v for k, v in text.to_dict().items() if v is not None and k not in ("rope_parameters", "model_type")}
    return llm | {
        "architectures": ["MiniCPMV"],
        "model_type": ORIGINAL_MODEL_TYPE,
        "version": VERSION,
        "rope_theta": text.rope_parameters["rope_theta"],
        "query_num": config.image_seq_length,
        "drop_vision_last_layer": False,
        "slice_config": {"max_slice_nums": 9, "scale_resolution": config.scale_resolution, "model_type": "minicpmv"},
        "vision_config": {"model_type": Idefics2Config.model_type, **{k: getattr(vision, k) for k in _TOWER}},
    }


def weight_map(config: MiniCPMVConfig) -> WeightMap:
    """The table of names; the resampler's attention has q, k and v in one tensor there."""
    qkv = FusedRows(groups=1, heads_per_group=1, head_dim=config.text_config.hidden_size)
    projections = [f"{_PROJECTOR}.{part}_proj" for part in "qkv"]
    fused = [
        Rule(f"resampler.attn.in_proj_{kind}", tuple(f"{path}.{kind}" for path in projections), qkv)
        for kind in ("weight", "bias")
    ]
    return WeightMap(
        [
            Rule("llm.model", ("model.language_model",)),
            Rule("llm.lm_head", ("lm_head",)),
            Rule("vpm", ("model.vision_tower",)),
            *(Rule(original, (f"{_PROJECTOR}.{native}",)) for original, native in _MODULES.items()),
            *fused,
        ]
    )


def hub_to_native(name: str) -> str:
    """The files that are written here have the names in memory."""
    return name


def native_to_hub(name: str) -> str:
    """The way back."""
    return name


def hub_config(config: MiniCPMVConfig, is_plain: bool) -> dict[str, Any]:
    """What config.json says beside the original's layout."""
    return json.loads(config.to_json_string()) | {"architectures": ["MiniCPMVForConditionalGeneration"]}


def language_model_kind(config: MiniCPMVConfig) -> str:
    """Llama 3."""
    return config.text_config.model_type


def case_inputs(case: Mapping[str, torch.Tensor], config: MiniCPMVConfig) -> tuple[torch.Tensor, Vision]:
    """Pictures `image_0`, `image_1`, ... [3, H, W] as patches; the token that they stand in the places of.

    Raises:
        UserError: no token occurs as often as there are embeddings of pictures.
    """
    size = config.vision_config.patch_size
    pictures = [case[name] for name in sorted(case, key=_number) if name.startswith("image_")]
    ids, counts = case["input_ids"].unique(return_counts=True)
    fitting = ids[counts == len(pictures) * config.image_seq_length].tolist()
    if not fitting:
        raise UserError(f"no token occurs {len(pictures)} x {config.image_seq_length} times in input_ids")
    config.image_token_id = fitting[0]
    cut = [picture.unfold(1, size, size).unfold(2, size, size).permute(1, 2, 0, 3, 4) for picture in pictures]
    return case["input_ids"], {
        "patches": torch.cat([patches.flatten(0, 1) for patches in cut]),
        "grids": torch.tensor([patches.shape[:2] for patches in cut]),
    }


def _number(name: str) -> int:
    digits = name.rpartition("_")[2]
    return int(digits) if digits.isdecimal() else -1


def open_original(folder: Path, config: MiniCPMVConfig, base_path: str | None = None) -> dict[str, LazyTensor]:
    """The native tensors of an original folder, which is always complete.

    Raises:
        UserError: they cannot be read, or are not the family's.
    """
    return weight_map(config).to_native(stored_weights(folder))
