"""What lmms-eval finds under its entry point: this project's model by name."""

from __future__ import annotations

from typing import Any

MODEL_NAME = "intentvcnet"


def manifest() -> Any:
    """The model's manifest; called by lmms-eval, which is imported only here."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(MODEL_NAME, simple_class_path="internvl_chat.lmms.harness_model.HarnessModel")
