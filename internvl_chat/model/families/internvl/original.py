"""Configurations, original <-> native.

What an original config.json says beyond geometry (tiling, template, the old class names) has no place in the native
one; it is kept whole in `IntentVCNetConfig.original`, so that exporting gives it back.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, InternVLConfig, PreTrainedConfig

from internvl_chat.constants import CHAT_END_TOKENS, IMG_CONTEXT, SPECIAL_TOKENS
from internvl_chat.contracts import UserError
from internvl_chat.model.conversion.token_files import added_token_ids
from internvl_chat.model.conversion.weight_files import LazyTensor, open_weights, stored_weights
from internvl_chat.model.families.internvl.configuration import IntentVCNetConfig, IntentVCNetVisionConfig
from internvl_chat.model.families.internvl.original_names import (
    MULTI_ADAPTER_CLASS,
    AdapterLayout,
    InternVLWeightMap,
    internlm2_rules,
    language_rules,
    vision_rules,
)
from internvl_chat.model.families.internvl.original_names import hub_to_native as hub_to_native
from internvl_chat.model.families.internvl.original_names import native_to_hub as native_to_hub
from internvl_chat.vision import Vision

HAS_ORIGINAL_LAYOUT = True
ORIGINAL_MODEL_TYPE = "internvl_chat"
# The language models of the family: the class that the original names, and what it is here.
_LANGUAGE_MODELS = {
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "InternLM2ForCausalLM": "internlm2",
    "LlamaForCausalLM": "llama",
    "Phi3ForCausalLM": "phi3",
}
_ARCHITECTURES = {kind: name for name, kind in _LANGUAGE_MODELS.items()}
_PLAIN_CLASS = "InternVLChatModel"

# Our own addition to the original's vision_config, written where the adapters are not the original's.
_NORM_FIELD = "adapter_norm"

# Vision fields: original name -> native name.
_VISION_FIELDS = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "num_channels": "num_channels",
    "hidden_act": "hidden_act",
    "norm_type": "norm_type",
    "layer_norm_eps": "layer_norm_eps",
    "attention_dropout": "attention_dropout",
    "initializer_range": "initializer_range",
    "qkv_bias": "attention_bias",
    "qk_normalization": "use_qk_norm",
    "dropout": "projection_dropout",
    "initializer_factor": "layer_scale_init_value",
}
# What the original's InternVisionConfig assumes where the file says nothing: InternViT-6B.
_VISION_DEFAULTS = {
    "hidden_size": 3200,
    "intermediate_size": 12800,
    "num_hidden_layers": 48,
    "num_attention_heads": 25,
    "image_size": 224,
    "patch_size": 14,
    "qkv_bias": False,
    "qk_normalization": True,
    "norm_type": "rms_norm",
    "initializer_factor": 0.1,
}


def is_original(fields: Mapping[str, Any]) -> bool:
    """Whether a config.json is in the original layout."""
    return fields.get("model_type") == ORIGINAL_MODEL_TYPE


def native_config(fields: dict[str, Any], folder: Path) -> IntentVCNetConfig:
    """The native configuration of an original config.json: box adapters as the weights beside it have them.

    Raises:
        UserError: an unknown language model, or a field that the native model cannot follow.
    """
    has_weights = any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))
    adapters = AdapterLayout.of_names(open_weights(folder)) if has_weights else AdapterLayout.of_class(fields)
    return config_of(fields, adapters, folder)


def _kind_of_fields(llm_config: dict[str, Any], where: str) -> str:
    """`qwen2`, `qwen3`, `internlm2`, `llama` or `phi3`.

    Raises:
        UserError: a language model that cannot be converted.
    """
    name = (llm_config.get("architectures") or [""])[0]
    kind = _LANGUAGE_MODELS.get(name)
    if kind is None and not name:
        kind = llm_config.get("model_type")
    if kind not in _ARCHITECTURES:
        raise UserError(
            f"{where}: has an unknown language model, {name or llm_config.get('model_type')!r}: expected one of "
            f"{', '.join(_LANGUAGE_MODELS)}"
        )
    return kind


def config_of(original: dict[str, Any], adapters: AdapterLayout, folder: Path) -> IntentVCNetConfig:
    """The native configuration of an original config.json.

    Args:
        original: its content.
        adapters: as found in the weights, or guessed from the class name.
        folder: where it lies; the tokenizer's files beside it tell the id of `<IMG_CONTEXT>`.
    Raises:
        UserError: an unknown language model, or a field that the native model cannot follow.
    """
    where = str(folder / "config.json")
    for field in ("llm_config", "vision_config"):
        if not isinstance(original.get(field), dict):
            raise UserError(f"{where}: has no {field}, which a config.json of {ORIGINAL_MODEL_TYPE} has")
    if original.get("ps_version", "v2") != "v2":
        raise UserError(f"{where}: ps_version is {original['ps_version']!r}: only 'v2' pixel shuffle is computed here")
    vision = _native_vision(original["vision_config"], adapters.count)
    llm = original["llm_config"]
    text = _native_text(llm, _kind_of_fields(llm, where))
    token_ids = added_token_ids(folder)
    # A chat ends with its own token; what the language model was first trained to end with is another.
    ends = {token_ids[name] for name in CHAT_END_TOKENS if name in token_ids}
    if ends and not isinstance(text.eos_token_id, list):
        text.eos_token_id = sorted(ends | ({text.eos_token_id} - {None}))
    ratio = float(original.get("downsample_ratio", 0.5))
    shown_px = original.get("force_image_size") or vision.image_size[0]
    return IntentVCNetConfig(
        vision_config=vision,
        text_config=text,
        # Without a tokenizer, where all of the family have it: the special tokens close the vocabulary.
        image_token_id=token_ids.get(IMG_CONTEXT, llm["vocab_size"] - len(SPECIAL_TOKENS) + _IMAGE_TOKEN_OFFSET),
        image_seq_length=int(shown_px // vision.patch_size[0] * ratio) ** 2,
        downsample_ratio=ratio,
        vision_feature_layer=original.get("select_layer", -1),
        tie_word_embeddings=bool(llm.get("tie_word_embeddings", False)),
        original={"config": copy.deepcopy(original), "single_adapter_prefix": adapters.single_prefix},
    )


def _native_vision(original: dict[str, Any], num_adapter_layers: int) -> IntentVCNetVisionConfig:
    fields = {**_VISION_DEFAULTS, **original}
    return IntentVCNetVisionConfig(
        **{native: fields[name] for name, native in _VISION_FIELDS.items() if name in fields},
        image_size=fields["image_size"],
        patch_size=fields["patch_size"],
        num_adapter_layers=num_adapter_layers,
        # The original normalises over space and does not say so; only what was exported from here says otherwise.
        adapter_norm=fields.get(_NORM_FIELD, "spatial") if num_adapter_layers else "channel",
    )


def _native_text(llm: dict[str, Any], kind: str) -> PreTrainedConfig:
    config_class = CONFIG_MAPPING["llama" if kind == "internlm2" else kind]
    # Configs of old versions list every default of every model; only the class's own fields are taken.
    known = {field.name for field in dataclasses.fields(config_class)} - {"transformers_version", "architectures"}
    fields = {k: v for k, v in llm.items() if k in known and v is not None}
    if kind == "internlm2":
        fields["attention_bias"] = bool(llm.get("bias", False))
        fields.setdefault("max_position_embeddings", 2048)
    fields["rope_parameters"] = _rope_parameters(llm)
    # Rows that only pad the vocabulary have no token; those fields may be absent in the file but not None here.
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        fields.setdefault(name, None)
    if fields["pad_token_id"] is not None and not 0 <= fields["pad_token_id"] < llm["vocab_size"]:
        fields["pad_token_id"] = None
    return config_class(**fields)


def _rope_parameters(llm: dict[str, Any]) -> dict[str, Any]:
    parameters = dict(llm.get("rope_parameters") or llm.get("rope_scaling") or {})
    parameters.setdefault("rope_theta", llm.get("rope_theta", 10000.0))
    parameters["rope_theta"] = float(parameters["rope_theta"])
    kind = parameters.pop("type", None)
    parameters.setdefault("rope_type", {"su": "longrope", None: "default"}.get(kind, kind))
    if parameters["rope_type"] == "longrope":
        parameters.setdefault("original_max_position_embeddings", llm.get("original_max_position_embeddings", 4096))
    return parameters


_IMAGE_TOKEN_OFFSET = SPECIAL_TOKENS.index(IMG_CONTEXT)


def weight_map(config: InternVLConfig) -> InternVLWeightMap:
    """The table of names for a model of this configuration."""
    kept = getattr(config, "original", None) or {}
    text, vision = config.text_config, config.vision_config
    if text.model_type == "llama" and language_model_kind(config) == "internlm2":
        head_dim = text.hidden_size // text.num_attention_heads
        rules = internlm2_rules(text.num_attention_heads, text.num_key_value_heads, head_dim)
    else:
        rules = language_rules()
    return InternVLWeightMap([*vision_rules(vision.hidden_size), *rules], kept.get("single_adapter_prefix"))


def open_original(folder: Path, config: InternVLConfig, base_path: str | None = None) -> dict[str, LazyTensor]:
    """The native tensors of an original folder, which is always complete; LoRA's pairs as they are.

    Raises:
        UserError: they cannot be read, or are not InternVL's.
    """
    return weight_map(config).to_native(stored_weights(folder))


def language_model_kind(config: InternVLConfig) -> str:
    """The kind of language model that the original layout has, or would have, for this configuration."""
    kept = getattr(config, "original", None)
    if kept:
        return _kind_of_fields(kept["config"]["llm_config"], "config.json")
    return config.text_config.model_type


def original_config(config: InternVLConfig) -> dict[str, Any]:
    """The content of an original config.json for a native configuration.

    Raises:
        UserError: a language model that the original layout does not have.
    """
    kept = getattr(config, "original", None)
    original: dict[str, Any] = copy.deepcopy(kept["config"]) if kept else _computed_config(config)
    count = getattr(config.vision_config, "num_adapter_layers", 0)
    if count and not AdapterLayout.of_class(original).count:
        original["architectures"] = [MULTI_ADAPTER_CLASS]
    if count and config.vision_config.adapter_norm == "channel":
        original["vision_config"][_NORM_FIELD] = "channel"
    return original


def _computed_config(config: InternVLConfig) -> dict[str, Any]:
    text, vision = config.text_config, config.vision_config
    kind = language_model_kind(config)
    if kind not in _ARCHITECTURES:
        raise UserError(f"the original layout has no {kind!r} language model: expected one of {list(_LANGUAGE_MODELS)}")
    llm = {k: v for k, v in text.to_dict().items() if v is not None and k not in ("rope_parameters", "layer_types")}
    rope = dict(text.rope_parameters)
    llm |= {"architectures": [_ARCHITECTURES[kind]], "rope_theta": rope.pop("rope_theta")}
    if rope.pop("rope_type", "default") != "default":
        llm["rope_scaling"] = {**rope, "type": text.rope_parameters["rope_type"]}
    seen = {old: getattr(vision, native) for old, native in _VISION_FIELDS.items()}
    sides = {"image_size": vision.image_size[0], "patch_size": vision.patch_size[0]}
    side_px = round(config.image_seq_length**0.5 / config.downsample_ratio) * vision.patch_size[0]
    return {
        "architectures": [_PLAIN_CLASS],
        "model_type": ORIGINAL_MODEL_TYPE,
        "downsample_ratio": config.downsample_ratio,
        "dynamic_image_size": True,
        "force_image_size": side_px,
        "llm_config": llm,
        "max_dynamic_patch": 12,
        "min_dynamic_patch": 1,
        "pad2square": False,
        "ps_version": "v2",
        "select_layer": config.vision_feature_layer,
        "template": template_of(config),
        "tie_word_embeddings": config.tie_word_embeddings,
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "use_thumbnail": True,
        "vision_config": {"architectures": ["InternVisionModel"], "use_flash_attn": False, **seen, **sides},
    }


def template_of(config: InternVLConfig) -> str | None:
    """The conversation template a checkpoint was made with; None where nothing tells."""
    kept = getattr(config, "original", None)
    if kept:
        return kept["config"].get("template")
    return _TEMPLATE_OF_KIND.get(config.text_config.model_type)


# For `-hf` files, which do not say; Llama stands for InternLM2 or Llama of several generations, so it tells nothing.
_TEMPLATE_OF_KIND = {"qwen2": "internvl2_5", "qwen3": "internvl2_5", "phi3": "phi3-chat"}


def hub_config(config: InternVLConfig, is_plain: bool) -> dict[str, Any]:
    """A config.json that transformers' own InternVL reads, where nothing of ours is inside."""
    fields: dict[str, Any] = json.loads(config.to_json_string())
    if isinstance(config, IntentVCNetConfig) and is_plain:
        vision = {k: v for k, v in fields["vision_config"].items() if k not in ("num_adapter_layers", "adapter_norm")}
        fields |= {"model_type": "internvl", "vision_config": {**vision, "model_type": "internvl_vision"}}
        fields["architectures"] = ["InternVLForConditionalGeneration"]
        del fields["region_tokens"]
    elif not is_plain:
        fields["architectures"] = ["IntentVCNetForConditionalGeneration"]
    return fields


def case_inputs(case: Mapping[str, torch.Tensor], config: InternVLConfig) -> tuple[torch.Tensor, Vision]:
    """`pixel_values` [F, 3, S, S], and `bboxes` [F, 4] where the model has box adapters.

    Raises:
        UserError: no token stands for pictures.
    """
    config.image_token_id = _image_token_id(case, config.image_token_id)
    vision = {"pixel_values": case["pixel_values"]}
    return case["input_ids"], vision | ({"boxes": case["bboxes"]} if "bboxes" in case else {})


def _image_token_id(case: Mapping[str, torch.Tensor], configured: int) -> int:
    """Cases speak token ids and bring no tokenizer: the image token is the one there is a visual token for."""
    count = case["expected_visual_tokens"].shape[:-1].numel()
    ids, counts = case["input_ids"].unique(return_counts=True)
    fitting = ids[counts == count].tolist()
    if not fitting:
        raise UserError(f"no token occurs {count} times in input_ids, once for each visual token")
    return configured if configured in fitting else int(fitting[0])
