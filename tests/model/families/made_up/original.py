"""Its files: names in files are those in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch

from internvl_chat.vision import Vision

HAS_ORIGINAL_LAYOUT = False


def is_original(fields: Mapping[str, Any]) -> bool:
    return False


def native_config(fields: dict[str, Any], folder: Path) -> NoReturn:
    raise NotImplementedError


def original_config(config: Any) -> NoReturn:
    raise NotImplementedError


def weight_map(config: Any) -> NoReturn:
    raise NotImplementedError


def open_original(folder: Path, config: Any, base_path: str | None) -> NoReturn:
    raise NotImplementedError


def hub_to_native(name: str) -> str:
    return name


def native_to_hub(name: str) -> str:
    return name


def hub_config(config: Any, is_plain: bool) -> dict[str, Any]:
    return json.loads(config.to_json_string())


def language_model_kind(config: Any) -> str:
    return str(config.text_config.model_type)


def case_inputs(case: Mapping[str, torch.Tensor], config: Any) -> tuple[torch.Tensor, Vision]:
    return case["input_ids"], {"pixel_values": case["pixel_values"]}
