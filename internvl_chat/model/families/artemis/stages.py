"""The folders that Artemis' stages leave, each with a part alone, put together to the tensors of one model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch

from internvl_chat.contracts import UserError
from internvl_chat.model.conversion.weight_files import (
    LazyTensor,
    has_weights,
    open_bin,
    open_safetensors,
    open_weights,
    stored_weights,
)
from internvl_chat.model.conversion.weight_map import fold_lora
from internvl_chat.model.families.artemis.configuration import ArtemisConfig
from internvl_chat.model.families.artemis.names import ORIGINAL_REGION_MARK, PROJECTOR_PREFIX, to_native

PROJECTOR_NAME, TRAINED_NAME = "mm_projector.bin", "non_lora_trainables.bin"
LORA_NAMES = ("adapter_model.safetensors", "adapter_model.bin")
LORA_CONFIG_NAME = "adapter_config.json"
# In a start's config.json: where its language model lies.
START_FIELD = "start_language_model"


def is_start(folder: Path) -> bool:
    """Whether an original folder holds no weights, and names what training begins from."""
    path = folder / "config.json"
    return path.is_file() and START_FIELD in json.loads(path.read_text(encoding="utf-8"))


def is_part(folder: Path) -> bool:
    """Whether an original folder holds only what a stage trained, or nothing yet, and needs its base."""
    return (folder / TRAINED_NAME).is_file() or (folder / PROJECTOR_NAME).is_file() or is_start(folder)


def has_regions(folder: Path) -> bool:
    """Whether a folder's weights have a region encoder; one without weights is taken to have it."""
    if is_part(folder):
        return (folder / TRAINED_NAME).is_file()
    return not has_weights(folder) or any(ORIGINAL_REGION_MARK in name for name in open_weights(folder))


def drawn_projector(config: ArtemisConfig) -> dict[str, LazyTensor]:
    """The projector that a start begins with, drawn as torch draws linear layers: the same one wherever it is read."""

    def draw(number: int, name: str, seen: int) -> torch.Tensor:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(number)
            return getattr(torch.nn.Linear(seen, width), name).detach()

    width = config.text_config.hidden_size
    return {
        f"{PROJECTOR_PREFIX}linear_{number}.{name}": LazyTensor(
            torch.Size(shape), torch.float32, partial(draw, number, name, seen)
        )
        for number, seen in ((1, config.vision_config.hidden_size), (2, width))
        for name, shape in (("weight", (width, seen)), ("bias", (width,)))
    }


def open_stage(folder: Path, base_path: str | None) -> dict[str, LazyTensor]:
    """The native tensors of a stage's folder with those that it was trained on, LoRA folded in; the tower may lack.

    Raises:
        UserError: the base is missing or of another width.
    """
    if not is_part(folder):
        return to_native(stored_weights(folder))
    base = Path(base_path or _base_of(folder))
    if not base.is_dir():
        raise UserError(
            f"{folder}: holds only what was trained on {base}, which is not there; give its place as --base"
        )
    tensors = open_stage(base, None)
    for name, tensor in _trained_parts(folder).items():
        same = tensors.get(name)
        if same is not None and same.shape != tensor.shape:
            raise UserError(
                f"{folder}: {name} is {list(tensor.shape)}, its base's at {base} is {list(same.shape)}: "
                "give the base that it was trained on"
            )
        tensors[name] = tensor
    _check_lora_width(folder, tensors)
    return fold_lora(tensors, _lora_scale(folder))


def _base_of(folder: Path) -> str:
    """What a part says that it was trained on; `its base` where it does not say."""
    said_in = (
        (LORA_CONFIG_NAME, "base_model_name_or_path"),
        ("config.json", START_FIELD),
        ("config.json", "_name_or_path"),
    )
    for name, field in said_in:
        if (folder / name).is_file():
            said = json.loads((folder / name).read_text(encoding="utf-8")).get(field)
            if said:
                return str(said)
    return "its base"


def _lora_scale(folder: Path) -> float:
    path = folder / LORA_CONFIG_NAME
    if not path.is_file():
        return 1.0
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return float(fields["lora_alpha"]) / float(fields["r"])
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: is no LoRA configuration ({error!r})") from error


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
