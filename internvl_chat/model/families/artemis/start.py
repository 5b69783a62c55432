"""What stage 1 begins from: Vicuna's language model and a CLIP tower become a folder that names both."""

from __future__ import annotations

import shutil
from pathlib import Path

from transformers import LlamaConfig

from internvl_chat.families import CONFIG_NAME, read_config_file
from internvl_chat.files import write_json
from internvl_chat.model.conversion.weight_files import open_weights
from internvl_chat.model.families.artemis.original import native_config, open_tower, original_config
from internvl_chat.model.families.artemis.stages import START_FIELD

LANGUAGE_MODELS = (LlamaConfig.model_type,)
_COPIED = ("tokenizer*", "special_tokens_map.json", "generation_config.json")


def write_start(language_model: Path, tower: Path, folder: Path) -> None:
    """Write a base without weights: they are read from where they lie, and the projector is drawn.

    Raises:
        UserError: one of the two holds no weights, or is another model.
    """
    open_weights(language_model)
    open_tower(tower)
    names = {"mm_image_tower": str(tower.resolve()), START_FIELD: str(language_model.resolve())}
    config = native_config(read_config_file(language_model) | names, language_model)
    config.original = None
    folder.mkdir(parents=True, exist_ok=True)
    for path in (path for pattern in _COPIED for path in sorted(language_model.glob(pattern))):
        shutil.copyfile(path, folder / path.name)
    write_json(folder / CONFIG_NAME, original_config(config) | names)
