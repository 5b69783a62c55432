"""Artemis models whose weights follow from their names, and the prompts of recorded cases."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPVisionConfig, LlamaConfig

from internvl_chat.constants import IGNORE_INDEX
from internvl_chat.model.conversion.weight_files import LazyTensor
from internvl_chat.model.families.artemis.configuration import ArtemisConfig
from internvl_chat.model.families.artemis.model import ArtemisForConditionalGeneration
from internvl_chat.model.families.artemis.original import to_native

ORIGINAL_VIDEO_ID, ORIGINAL_REGION_ID = -200, -500


def named_weight(name: str, shape: list[int]) -> torch.Tensor:
    """The value that shared/parity/README.md gives a parameter of this name."""
    z = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) > 1 and "position_embedding" not in name and "embed_tokens" not in name:
        z = z / math.sqrt(math.prod(shape[1:]))
    elif len(shape) == 1 and name.endswith("weight"):
        z = 1 + 0.1 * z
    else:
        z = 0.1 * z
    return torch.from_numpy(np.asarray(z, dtype=np.float32))


def lazy(tensor: torch.Tensor) -> LazyTensor:
    return LazyTensor(tensor.shape, tensor.dtype, lambda: tensor)


def case_model(folder: Path) -> ArtemisForConditionalGeneration:
    """The model of a case in fp32, its weights by way of the original's names."""
    geometry: dict[str, Any] = json.loads((folder / "model.json").read_text())
    config = ArtemisConfig(
        vision_config=CLIPVisionConfig(**geometry["clip"]), text_config=LlamaConfig(**geometry["llama"])
    )
    original = {name: lazy(named_weight(name, shape)) for name, shape in geometry["parameters"].items()}
    native = {name: tensor.read() for name, tensor in to_native(original).items()}
    model = ArtemisForConditionalGeneration(config)
    model.load_state_dict(native, strict=True)
    model.set_attn_implementation("eager")
    return model.eval()


def spread(config: ArtemisConfig, ids: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A case's ids and labels [1, L] with a slot for every token of the video, and the slots' ids as they are here."""
    new_ids: list[int] = []
    new_labels: list[int] = []
    for token, label in zip(ids[0].tolist(), labels[0].tolist(), strict=True):
        if token == ORIGINAL_VIDEO_ID:
            new_ids += [config.video_token_id] * config.video_seq_length
            new_labels += [IGNORE_INDEX] * config.video_seq_length
        else:
            new_ids.append(config.region_token_id if token == ORIGINAL_REGION_ID else token)
            new_labels.append(label)
    return torch.tensor([new_ids]), torch.tensor([new_labels])
