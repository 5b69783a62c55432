"""Videos as features on disk: the tower alone, what it makes of a video's frames, and what tells it from others."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

from internvl_chat.model.checkpoint import TRAINED_MODULES_NAME, base_of, is_training_checkpoint
from internvl_chat.model.conversion.weight_files import LazyTensor, open_safetensors
from internvl_chat.model.families.artemis.configuration import MAX_VIDEO_FRAMES
from internvl_chat.model.families.artemis.model import pooled_video
from internvl_chat.model.families.artemis.names import TOWER_PREFIX
from internvl_chat.model.loading import load_config, open_native

_PATCHES = f"{TOWER_PREFIX}embeddings.patch_embedding.weight"
_SAMPLES = 16


@cache
def tower_mark(folder: Path, base_path: str | None = None) -> tuple[float, ...]:
    """Numbers that tell a model's tower, and what is read of it, from others, whatever the dtype of its files.

    Raises:
        UserError: its weights, or its base's, cannot be read.
    """
    config: Any = load_config(folder)
    vision = config.vision_config
    weights = _tower_tensors(folder, base_path)[_PATCHES].read().float().flatten()
    sampled = weights[:: max(1, len(weights) // _SAMPLES)][:_SAMPLES].tolist()
    return (config.vision_feature_layer, vision.image_size, vision.patch_size, vision.hidden_size, *sampled)


def features_shape(folder: Path) -> tuple[int, int, int]:
    """Rows of frames and of patches of a video's features, and their width."""
    config: Any = load_config(folder)
    return MAX_VIDEO_FRAMES, config.image_seq_length, config.vision_config.hidden_size


class VideoTower:
    """The tower of a model, without its language model.

    Args:
        folder: of the model.
        batch_frames: shown to the tower at a time.
    Raises:
        UserError: its weights, or its base's, cannot be read.
    """

    def __init__(
        self, folder: Path, base_path: str | None, device: torch.device, dtype: torch.dtype, batch_frames: int
    ) -> None:
        config: Any = load_config(folder)
        self.layer, self.batch_frames = config.vision_feature_layer, batch_frames
        self.tower = AutoModel.from_config(config.vision_config)
        tensors = _tower_tensors(folder, base_path)
        self.tower.load_state_dict({name.removeprefix(TOWER_PREFIX): tensor.read() for name, tensor in tensors.items()})
        self.tower.to(device, dtype).eval()

    @torch.inference_mode()
    def __call__(self, frames_F3SS: torch.Tensor) -> torch.Tensor:
        """Features [100 + N, C], float32, of a video's normalised frames."""
        read = []
        for frames in frames_F3SS.split(self.batch_frames):
            states = self.tower(frames.to(self.tower.device, self.tower.dtype), output_hidden_states=True).hidden_states
            read.append(states[self.layer][:, 1:].float())
        return pooled_video(torch.cat(read))


def _tower_tensors(folder: Path, base_path: str | None) -> dict[str, LazyTensor]:
    if is_training_checkpoint(folder):
        base = base_of(folder, load_config(folder), base_path)
        tensors = open_native(base) | open_safetensors(folder / TRAINED_MODULES_NAME)
    else:
        tensors = open_native(folder, base_path)
    return {name: tensor for name, tensor in tensors.items() if name.startswith(TOWER_PREFIX)}
