"""A model's files: read for a rank's device, and told from others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import PeftModel

from internvl_chat.inference.ranks import Ranks
from internvl_chat.model.checkpoint import load_captioner

_MODEL_FILES = ("*.json", "*.safetensors", "*.bin", "*.model")


def load_weights(folder: Path, base_path: str | None, ranks: Ranks) -> Any:
    """The captioner of a base, a training checkpoint or a merged folder, in eval mode on this rank's device.

    Raises:
        UserError: its weights, or those of its base, cannot be used.
    """
    model = load_captioner(folder, base_path=base_path, dtype=ranks.dtype).to(ranks.device)
    return model.get_base_model() if isinstance(model, PeftModel) else model


def file_marks(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of each file that makes the model."""
    files = sorted(path for pattern in _MODEL_FILES for path in folder.glob(pattern))
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
