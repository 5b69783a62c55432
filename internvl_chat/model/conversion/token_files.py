"""Ids of added tokens, read from the tokenizer's files beside a checkpoint's weights; no tokenizer is built."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def added_token_ids(folder: Path) -> dict[str, int]:
    """Ids of the added tokens by name, as far as the files in `folder` list them."""
    ids: dict[str, int] = {}
    for name, read in _TOKEN_FILES.items():
        path = folder / name
        if path.is_file():
            ids |= read(json.loads(path.read_text(encoding="utf-8")))
    return ids


_TOKEN_FILES: dict[str, Callable[[dict[str, Any]], dict[str, int]]] = {
    "tokenizer.json": lambda fields: {token["content"]: token["id"] for token in fields.get("added_tokens", [])},
    "added_tokens.json": lambda fields: fields,
    "tokenizer_config.json": lambda fields: {
        token["content"]: int(number) for number, token in fields.get("added_tokens_decoder", {}).items()
    },
}
