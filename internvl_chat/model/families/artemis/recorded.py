"""Recorded results of the original Artemis: cases without weights, whose values follow from the parameters' names."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPVisionConfig, LlamaConfig

from internvl_chat.constants import IGNORE_INDEX
from internvl_chat.contracts import UserError
from internvl_chat.files import read_json
from internvl_chat.model.conversion.weight_files import LazyTensor, open_safetensors
from internvl_chat.model.families.artemis.configuration import ArtemisConfig
from internvl_chat.model.families.artemis.model import ArtemisForConditionalGeneration
from internvl_chat.model.families.artemis.original import ORIGINAL_REGION_ID, case_inputs, to_native

GEOMETRY_NAME = "model.json"
CASE_TENSORS = ("video_features", "images", "boxes", "input_ids", "labels")
EXPECTED = ("level_features", "region_features", "video_tokens", "logits", "loss")
# Only so many of the patches and of the video's tokens are kept in a case.
_PATCH_STRIDE, _VIDEO_STRIDE = 37, 25


def is_case(folder: Path) -> bool:
    """Whether a folder holds a geometry in place of a checkpoint."""
    return (folder / GEOMETRY_NAME).is_file()


def named_weight(name: str, shape: Sequence[int]) -> torch.Tensor:
    """The float32 value that cases give a parameter of this name.

    Normal numbers seeded by the name; of matrices and kernels divided by the root of their fan-in, of norms' weights
    near one, of all else small.
    """
    drawn = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    is_table = "position_embedding" in name or "embed_tokens" in name
    if len(shape) > 1 and not is_table:
        drawn = drawn / math.sqrt(math.prod(shape[1:]))
    elif len(shape) == 1 and name.endswith("weight"):
        drawn = 1 + 0.1 * drawn
    else:
        drawn = 0.1 * drawn
    return torch.from_numpy(np.asarray(drawn, dtype=np.float32))


def named_tensors(shapes: Mapping[str, Sequence[int]]) -> dict[str, LazyTensor]:
    """Parameters of these names and shapes, drawn when they are read."""
    return {
        name: LazyTensor(torch.Size(shape), torch.float32, partial(named_weight, name, shape))
        for name, shape in shapes.items()
    }


def case_model(folder: Path) -> Any:
    """The model of a case in fp32 with plain attention, its weights by way of the original's names.

    Raises:
        UserError: it has no geometry, or its parameters are not Artemis'.
    """
    geometry: Any = read_json(folder / GEOMETRY_NAME)
    try:
        shapes = geometry["parameters"]
        hidden, seen = shapes["model.spi_model.roi_align.flatten_linear.weight"]
        config = ArtemisConfig(
            vision_config=CLIPVisionConfig(**geometry["clip"]),
            text_config=LlamaConfig(**geometry["llama"]),
            region_width=hidden,
            region_cells=math.isqrt(seen // geometry["clip"]["hidden_size"]),
        )
        model = ArtemisForConditionalGeneration(config)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder / GEOMETRY_NAME}: expected 'llama' and 'clip', the sizes, and 'parameters', Artemis' names with "
            f"their shapes ({error!r})"
        ) from error
    native = {name: tensor.read() for name, tensor in to_native(named_tensors(shapes)).items()}
    try:
        model.load_state_dict(native)
    except RuntimeError as error:
        raise UserError(f"{folder / GEOMETRY_NAME}: is no Artemis ({' '.join(str(error).split())})") from error
    model.set_attn_implementation("eager")
    return model.eval()


def check_recorded(folder: Path) -> dict[str, float]:
    """Compute in fp32 what a case holds, and compare.

    Args:
        folder: `model.json` and `case.safetensors`.
    Returns:
        The largest difference of each result, in shares of the result's largest value.
    Raises:
        UserError: the folder is no such case.
    """
    path = folder / "case.safetensors"
    case = {name: tensor.read() for name, tensor in open_safetensors(path).items()}
    absent = [name for name in (*CASE_TENSORS, *(f"expected_{name}" for name in EXPECTED)) if name not in case]
    if absent:
        raise UserError(f"{path}: lacks {', '.join(absent)}")
    slots, regions = int((case["input_ids"] == ORIGINAL_REGION_ID).sum()), len(case["boxes"])
    if not slots == regions == len(case["images"]):
        raise UserError(
            f"{path}: {slots} region slots, {regions} boxes, {len(case['images'])} images: expected as many"
        )
    model = case_model(folder)
    ids, vision = case_inputs(case, model.config)
    inner = model.model
    with torch.inference_mode():
        logits = model(input_ids=ids, vision=vision).logits
        computed = {
            "level_features": torch.stack(inner.level_features(vision["pixel_values"]))[:, :, ::_PATCH_STRIDE],
            "region_features": inner.region_tokens(vision),
            "video_tokens": inner.video_tokens(vision)[::_VIDEO_STRIDE],
            "logits": logits[:, -case["expected_logits"].shape[1] :],
            "loss": _loss(logits, case["labels"]).reshape(1),
        }
    return {name: _relative_difference(computed[name], case[f"expected_{name}"]) for name in EXPECTED}


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of the labels [1, L'], which stand at the end of the L >= L' positions."""
    said, targets = logits[0, -labels.shape[1] : -1], labels[0, 1:]
    return torch.nn.functional.cross_entropy(said, targets, ignore_index=IGNORE_INDEX)


def _relative_difference(computed: torch.Tensor, expected: torch.Tensor) -> float:
    if computed.shape != expected.shape:
        raise UserError(f"computed {list(computed.shape)}, expected {list(expected.shape)}")
    return ((computed - expected).abs().max() / expected.abs().max()).item()
