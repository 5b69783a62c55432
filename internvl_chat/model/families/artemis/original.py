"""Checkpoints as Artemis' training leaves them: names, configuration, and the parts of each stage put together.

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

from transformers import CLIPConfig, CLIPVisionConfig, LlamaConfig

from internvl_chat.contracts import UserError
from internvl_chat.model.conversion.weight_files import LazyTensor, open_bin, open_safetensors, open_weights
from internvl_chat.model.conversion.weight_map import Rule, WeightMap
from internvl_chat.model.families.artemis.configuration import ArtemisConfig

ORIGINAL_MODEL_TYPE = "llava"
PROJECTOR_NAME, TRAINED_NAME = "mm_projector.bin", "non_lora_trainables.bin"
LORA_NAMES = ("adapter_model.safetensors", "adapter_model.bin")
LORA_CONFIG_NAME = "adapter_config.json"
REGION_PREFIX = "model.region_encoder."
TOWER_PREFIX = "model.vision_tower."

_PEFT_PREFIX = "base_model.model."
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
_REGION_MODULES = {
    "mlvl_fuse.input_conv.{n}": "level_convs.{n}",
    "mlvl_fuse.fuse_convs.{n}.conv": "fusions.{n}.conv",
    "mlvl_fuse.fuse_convs.{n}.gn": "fusions.{n}.norm",
    "roi_align.pconvs.{n}": "roi_convs.{n}",
    "roi_align.flatten_linear": "roi_proj",
    "roi_align.pos_embedd.{n}": "position.{n}",
    "roi_align.updims": "out",
}
_RULES = (
    Rule("model.embed_tokens", ("model.language_model.embed_tokens",)),
    Rule("model.layers.{n}", ("model.language_model.layers.{n}",)),
    Rule("model.norm", ("model.language_model.norm",)),
    Rule("lm_head", ("lm_head",)),
    Rule("model.image_tower.vision_tower.vision_model", (TOWER_PREFIX.rstrip("."),)),
    Rule("model.mm_projector.0", ("model.multi_modal_projector.linear_1",)),
    Rule("model.mm_projector.2", ("model.multi_modal_projector.linear_2",)),
    *(Rule(f"model.spi_model.{a}", (REGION_PREFIX + b,)) for a, b in _REGION_MODULES.items()),
)


def weight_map() -> WeightMap:
    """The table of names, the same for every size."""
    return WeightMap(_RULES)


def to_native(tensors: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Native names of an original file's tensors, LoRA's as they are called inside a wrapped model.

    Raises:
        UserError: a tensor that is no part of Artemis.
    """
    bare = {_without_wrapping(name): tensor for name, tensor in tensors.items() if not _is_computed(name)}
    return weight_map().to_native(bare)


def _without_wrapping(name: str) -> str:
    name = name.removeprefix(_PEFT_PREFIX)
    for half in ("lora_A", "lora_B"):
        name = name.replace(f".{half}.weight", f".{half}.default.weight")
    return name


def _is_computed(name: str) -> bool:
    """Buffers that old versions stored, and that the configuration gives."""
    return name.endswith(("rotary_emb.inv_freq", "embeddings.position_ids"))


def native_config(original: Mapping[str, Any], where: Path, tower: Path | None = None) -> ArtemisConfig:
    """The native configuration of an original config.json.

    Args:
        original: its content.
        where: the file, for messages.
        tower: folder of the CLIP tower, where it is not the published one.
    Raises:
        UserError: it names another projector, or a tower whose geometry is not known here.
    """
    kind = original.get("mm_projector_type", _PROJECTOR_KIND)
    if kind != _PROJECTOR_KIND:
        raise UserError(f"{where}: mm_projector_type is {kind!r}: Artemis has {_PROJECTOR_KIND!r}")
    known = {field.name for field in dataclasses.fields(LlamaConfig)} - {"transformers_version", "architectures"}
    text = {name: value for name, value in original.items() if name in known and value is not None}
    return ArtemisConfig(
        vision_config=tower_config(original.get("mm_image_tower") or _LARGE_CLIP, where, tower),
        text_config=LlamaConfig(**text),
        vision_feature_layer=original.get("mm_vision_select_layer", -2),
        tie_word_embeddings=bool(original.get("tie_word_embeddings", False)),
        original={"config": copy.deepcopy(dict(original))},
    )


def tower_config(name: str, where: Path, tower: Path | None = None) -> CLIPVisionConfig:
    """The geometry of the CLIP tower that an original config.json names.

    Raises:
        UserError: it is neither the published one nor a folder.
    """
    folder = tower or Path(name)
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


def is_part(folder: Path) -> bool:
    """Whether an original folder holds only what a stage trained, and needs its base."""
    return (folder / TRAINED_NAME).is_file() or (folder / PROJECTOR_NAME).is_file()


def open_original(folder: Path, base: Path | None = None, tower: Path | None = None) -> dict[str, LazyTensor]:
    """The native tensors of a stage's checkpoint, LoRA's pairs among them; only headers are read.

    Args:
        base: what the checkpoint was trained on, where it holds only a part: Vicuna, or an earlier stage's folder.
        tower: folder of CLIP, where neither has it.
    Raises:
        UserError: the base is missing, or of another width.
    """
    tensors: dict[str, LazyTensor] = {}
    if not is_part(folder):
        tensors = to_native(open_weights(folder))
    elif base is None:
        raise UserError(f"{folder}: holds only what was trained; give its base as --model_name_or_path")
    else:
        tensors = open_original(base)
        for name, tensor in _trained_parts(folder).items():
            same = tensors.get(name)
            if same is not None and same.shape != tensor.shape:
                raise UserError(
                    f"{folder}: {name} is {list(tensor.shape)}, its base's at {base} is {list(same.shape)}: "
                    "give the base that it was trained on"
                )
            tensors[name] = tensor
        _check_lora_width(folder, tensors)
    if tower is not None and not any(name.startswith(TOWER_PREFIX) for name in tensors):
        tensors |= open_tower(tower)
    return tensors


def _trained_parts(folder: Path) -> dict[str, LazyTensor]:
    parts: dict[str, LazyTensor] = {}
    for name in (PROJECTOR_NAME, TRAINED_NAME):
        if (folder / name).is_file():
            parts |= to_native(open_bin(folder / name))
    lora = [folder / name for name in LORA_NAMES if (folder / name).is_file()]
    if not lora and (folder / LORA_CONFIG_NAME).is_file():
        raise UserError(f"{folder}: has a {LORA_CONFIG_NAME} but no {' or '.join(LORA_NAMES)}; copy it beside it")
    for path in lora[:1]:
        parts |= to_native(open_safetensors(path) if path.suffix == ".safetensors" else open_bin(path))
    return parts


def _check_lora_width(folder: Path, tensors: Mapping[str, LazyTensor]) -> None:
    """LoRA's matrices have names of their own: their widths are held against the weights that they belong to."""
    for name, tensor in tensors.items():
        path, half, _ = name.partition(".lora_")
        weight = tensors.get(f"{path}.weight")
        if not half:
            continue
        axis = 1 if ".lora_A." in name else 0
        if weight is None or weight.shape[axis] != tensor.shape[axis]:
            found = "no such weight" if weight is None else f"{list(weight.shape)}"
            raise UserError(
                f"{folder}: {name} is {list(tensor.shape)}, the base has {found} at {path}: "
                "give the base that it was trained on"
            )


def open_tower(folder: Path) -> dict[str, LazyTensor]:
    """The native tensors of a CLIP checkpoint's vision half.

    Raises:
        UserError: the folder has none.
    """
    prefix = "vision_model."
    stored = open_weights(folder)
    tensors = {
        TOWER_PREFIX + name.removeprefix(prefix): tensor
        for name, tensor in stored.items()
        if name.startswith(prefix) and not _is_computed(name)
    }
    if not tensors:
        raise UserError(f"{folder}: holds no CLIP vision tower: expected tensors named {prefix}*")
    return tensors
