"""Idefics3's files: transformers' layout is its own, so that names in files are those in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from transformers import Idefics3Config

from internvl_chat.contracts import UserError
from internvl_chat.model.families.idefics3.configuration import OUR_FIELDS
from internvl_chat.vision import Vision

HAS_ORIGINAL_LAYOUT = False


def is_original(fields: Mapping[str, Any]) -> bool:
    """Never: there is no other layout."""
    return False


def native_config(fields: dict[str, Any], folder: Path) -> NoReturn:
    """There is no other layout."""
    _refuse()


def original_config(config: Idefics3Config) -> NoReturn:
    """There is no other layout."""
    _refuse()


def weight_map(config: Idefics3Config) -> NoReturn:
    """There is no other layout."""
    _refuse()


def open_original(folder: Path, config: Idefics3Config, base_path: str | None) -> NoReturn:
    """There is no other layout."""
    _refuse()


def _refuse() -> NoReturn:
    raise UserError("Idefics3 has no layout but transformers'; expected --to hf")


def hub_to_native(name: str) -> str:
    """The same name."""
    return name


def native_to_hub(name: str) -> str:
    """The same name."""
    return name


def hub_config(config: Idefics3Config, is_plain: bool) -> dict[str, Any]:
    """A config.json that transformers' own Idefics3 reads, where nothing of ours is inside."""
    fields: dict[str, Any] = {**json.loads(config.to_json_string()), "use_cache": True}
    if not is_plain:
        return {**fields, "architectures": ["Idefics3Captioner"]}
    own = {name: value for name, value in fields.items() if name not in OUR_FIELDS}
    return {**own, "model_type": "idefics3", "architectures": ["Idefics3ForConditionalGeneration"]}


def language_model_kind(config: Idefics3Config) -> str:
    """`llama`."""
    return str(config.text_config.model_type)


def case_inputs(case: Mapping[str, torch.Tensor], config: Idefics3Config) -> tuple[torch.Tensor, Vision]:
    """`pixel_values` [T, 3, S, S]."""
    return case["input_ids"], {"pixel_values": case["pixel_values"]}
