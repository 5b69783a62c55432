"""From a folder or hub id in either layout to a model: told apart, checked against its configuration, then read.

Everything that can be wrong with the files is found from their headers, before a weight is read.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, StrictDataclassError
from torch.nn import functional as nnf
from transformers import AutoConfig, GenerationConfig, InternVLConfig
from transformers import initialization as init
from transformers.modeling_utils import set_zero3_state
from transformers.utils import logging as hf_logging

from internvl_chat.contracts import UserError
from internvl_chat.model.conversion.weight_files import LazyTensor, open_weights
from internvl_chat.model.conversion.weight_map import fold_lora, hub_to_native
from internvl_chat.model.families.internvl.configuration import IntentVCNetConfig
from internvl_chat.model.families.internvl.model import IntentVCNetForConditionalGeneration
from internvl_chat.model.families.internvl.original import AdapterLayout, is_original, native_config, weight_map

logger = logging.getLogger(__name__)

CONFIG_NAME = "config.json"
_HUB_FILES = ("*.json", "*.safetensors", "*.bin", "*.model", "*.txt", "*.jinja")
_VOCABULARY_TABLES = ("model.language_model.embed_tokens.weight", "lm_head.weight")
_POSITION_TABLE = "model.vision_tower.embeddings.position_embeddings"
# Small tensors that no two bases share: the ViT's first layer, and one of the language model's.
_FINGERPRINTED = (
    "model.vision_tower.embeddings.patch_embeddings.projection.weight",
    "model.language_model.layers.0.self_attn.k_proj.weight",
    "model.language_model.layers.0.self_attn.qkv_proj.weight",
    "model.language_model.norm.weight",
)


def resolve_folder(model_path: str | Path) -> Path:
    """A folder as it is; the files of a hub id, downloaded if need be.

    Raises:
        UserError: neither is there.
    """
    folder = Path(model_path)
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(str(model_path), allow_patterns=list(_HUB_FILES)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{model_path}: is neither a checkpoint folder nor a model of the hub ({reason})") from error


def read_config_file(folder: Path) -> dict[str, Any]:
    """The content of a folder's config.json.

    Raises:
        UserError: it is not there, or no JSON.
    """
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise UserError(f"{folder}: is no checkpoint: it holds no {CONFIG_NAME}")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(fields, dict) or "model_type" not in fields:
        raise UserError(f"{path}: names no model_type; expected 'internvl_chat', 'internvl' or 'intentvcnet'")
    return fields


def load_config(model_path: str | Path) -> InternVLConfig:
    """The configuration of a base, a merged model or a training checkpoint, in either layout.

    Raises:
        UserError: nothing is there, or it is no InternVL.
    """
    folder = resolve_folder(model_path)
    fields = read_config_file(folder)
    if is_original(fields):
        adapters = _adapter_layout(folder, fields)
    elif fields["model_type"] not in ("internvl", IntentVCNetConfig.model_type):
        raise UserError(
            f"{model_path}: is a {fields['model_type']!r} model, expected 'internvl_chat', 'internvl' or 'intentvcnet'"
        )
    try:
        if is_original(fields):
            return native_config(fields, adapters, folder)
        return AutoConfig.from_pretrained(folder)
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder / CONFIG_NAME}: is no valid InternVL configuration ({reason})") from error


def _adapter_layout(folder: Path, fields: dict[str, Any]) -> AdapterLayout:
    if any(folder.glob("*.safetensors")) or any(folder.glob("*.bin")):
        return AdapterLayout.of_names(open_weights(folder))
    return AdapterLayout.of_class(fields)


def open_native(folder: Path) -> dict[str, LazyTensor]:
    """The tensors of a complete model in either layout, under their native names; LoRA's pairs as they are.

    Raises:
        UserError: the weights cannot be read, or are no InternVL's.
    """
    # Old checkpoints also store what the rotary embedding computes from the configuration.
    tensors = {n: tensor for n, tensor in open_weights(folder).items() if not n.endswith("rotary_emb.inv_freq")}
    if not is_original(read_config_file(folder)):
        return {hub_to_native(name): tensor for name, tensor in tensors.items()}
    try:
        return weight_map(load_config(folder)).to_native(tensors)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error


def base_fingerprint(tensors: Mapping[str, LazyTensor]) -> str:
    """A short hash that tells bases apart, whatever layout they are stored in: all shapes, and a few small tensors."""
    adapters = ".box_adapters."
    digest = hashlib.sha256()
    for name in sorted(name for name in tensors if adapters not in name and ".lora_" not in name):
        digest.update(f"{name.replace('.base_layer.', '.')} {list(tensors[name].shape)}\n".encode())
    for name in _FINGERPRINTED:
        tensor = tensors.get(name, tensors.get(name.replace(".weight", ".base_layer.weight")))
        if tensor is not None:
            digest.update(tensor.read().to(torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def with_image_size(config: IntentVCNetConfig, image_size_px: int) -> None:
    """Set the tile's side; the position table is resized to it when the weights are read.

    Raises:
        UserError: the box adapters' norm works at one size only.
    """
    vision = config.vision_config
    if list(vision.image_size) == [image_size_px] * 2:
        return
    if vision.num_adapter_layers and vision.adapter_norm == "spatial":
        raise UserError(
            f"force_image_size {image_size_px}: the box adapters of this checkpoint normalise over the patches of a "
            f"{vision.image_size[0]} pixel tile; expected {vision.image_size[0]}"
        )
    vision.image_size = [image_size_px] * 2
    config.image_seq_length = int(image_size_px // vision.patch_size[0] * config.downsample_ratio) ** 2


def with_vocabulary(config: IntentVCNetConfig, num_tokens: int, image_token_id: int) -> None:
    """Make room for a tokenizer's tokens; the new rows are added when the weights are read. Padding rows are kept.

    Args:
        image_token_id: of `<IMG_CONTEXT>`, looked up in that tokenizer.
    """
    added = max(0, num_tokens - config.text_config.vocab_size)
    config.text_config.vocab_size += added
    config.num_added_tokens += added
    config.image_token_id = image_token_id


def load_weights(
    folder: Path,
    config: IntentVCNetConfig,
    tensors: Mapping[str, LazyTensor],
    *,
    dtype: torch.dtype,
    adapters_may_lack: bool = False,
    attn_implementation: str | None = None,
) -> IntentVCNetForConditionalGeneration:
    """Build the model of `config` from the native `tensors` of `folder`, one tensor at a time.

    Args:
        adapters_may_lack: box adapters that the files do not have are initialised.
    Raises:
        UserError: tensors are missing, unknown, or of another shape than the configuration says.
    """
    tensors = fold_lora(tensors)
    # A checkpoint without an output layer shares the embeddings; one that has both may have trained them apart.
    tied = "lm_head.weight" not in tensors
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = tied
    expected = expected_shapes(config)
    _fit_tables(tensors, config, expected)
    _check_fit(tensors, expected, folder, adapters_may_lack, tied)
    with _without_load_report():
        model = IntentVCNetForConditionalGeneration.from_pretrained(
            None, config=config, state_dict=tensors, dtype=dtype, attn_implementation=attn_implementation
        )
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    if config.vision_config.num_adapter_layers and config.vision_config.adapter_norm == "spatial":
        logger.warning(
            "%s: its box adapters normalise over space, as the original code does; this is kept for these weights",
            folder,
        )
    return model


@contextmanager
def _without_load_report() -> Iterator[None]:
    """transformers lists new adapters as missing weights; what may be missing was checked before."""
    verbosity = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)


def check_weights(folder: Path, config: InternVLConfig, tensors: Mapping[str, LazyTensor]) -> None:
    """Hold the native `tensors` of `folder` against its configuration; none is read.

    Raises:
        UserError: tensors are missing, unknown, or of another shape than the configuration says.
    """
    if not isinstance(config, IntentVCNetConfig):
        config = IntentVCNetConfig.from_base(config, num_adapter_layers=0)
    folded = fold_lora(tensors)
    _check_fit(folded, expected_shapes(config), folder, adapters_may_lack=False, tied="lm_head.weight" not in folded)


def fit_tables(tensors: Mapping[str, LazyTensor], config: IntentVCNetConfig) -> dict[str, LazyTensor]:
    """A base's tensors with the position table resized and the vocabulary's rows added as `config` asks for."""
    fitted = dict(tensors)
    _fit_tables(fitted, config, expected_shapes(config))
    return fitted


def expected_shapes(config: IntentVCNetConfig) -> dict[str, torch.Size]:
    """The shape of every tensor of a model, by its native name; nothing is allocated."""
    # Marked as already under ZeRO-3's hand: it would partition the meta tensors of the inner models.
    with set_zero3_state(), init.no_init_weights(), torch.device("meta"):
        model = IntentVCNetForConditionalGeneration(config)
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _check_fit(
    tensors: Mapping[str, LazyTensor],
    expected: Mapping[str, torch.Size],
    folder: Path,
    adapters_may_lack: bool,
    tied: bool,
) -> None:
    def optional(name: str) -> bool:
        return (adapters_may_lack and ".box_adapters." in name) or (tied and name == "lm_head.weight")

    missing = sorted(name for name in expected.keys() - tensors.keys() if not optional(name))
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} tensors are missing, such as {missing[0]}; expected all that its "
            f"{CONFIG_NAME} calls for: download or save it again"
        )
    unknown = sorted(tensors.keys() - expected.keys())
    if unknown:
        raise UserError(f"{folder}: {len(unknown)} tensors are not the model's, such as {unknown[0]}")
    for name, shape in expected.items():
        if name in tensors and tensors[name].shape != shape:
            raise UserError(
                f"{folder}: {name} is {list(tensors[name].shape)}: expected {list(shape)} by its {CONFIG_NAME}; "
                "do the two files belong together?"
            )


def _fit_tables(tensors: dict[str, LazyTensor], config: IntentVCNetConfig, expected: Mapping[str, torch.Size]) -> None:
    """Bring the tables that depend on tile size and vocabulary to the configuration's, where it asks for it."""
    for name in _VOCABULARY_TABLES:
        if config.num_added_tokens and name in tensors:
            rows, width = tensors[name].shape
            shape = torch.Size((rows + config.num_added_tokens, width))
            tensors[name] = tensors[name].map(shape, partial(append_mean_rows, count=config.num_added_tokens))
    table, shape = tensors.get(_POSITION_TABLE), expected[_POSITION_TABLE]
    if table is not None and len(table.shape) == 3 and table.shape[1] != shape[1] and table.shape[2] == shape[2]:
        tensors[_POSITION_TABLE] = table.map(shape, partial(resize_positions, num_positions=shape[1]))


def append_mean_rows(table: torch.Tensor, count: int) -> torch.Tensor:
    """A table [N, D] with `count` rows more, each the mean of the others, taken in at least fp32."""
    mean = table.to(torch.promote_types(table.dtype, torch.float32)).mean(0, keepdim=True).to(table.dtype)
    return torch.cat([table, mean.expand(count, -1)])


def resize_positions(table: torch.Tensor, num_positions: int) -> torch.Tensor:
    """Resize a ViT's position table to another square grid, bicubic, in at least fp32.

    Args:
        table: [1, 1 + side * side, C], the class token's first.
        num_positions: 1 + new side * new side.
    Returns:
        [1, num_positions, C], same dtype.
    """
    old, new = (round((count - 1) ** 0.5) for count in (table.shape[1], num_positions))
    wide = table[:, 1:].to(torch.promote_types(table.dtype, torch.float32))
    grid = wide.transpose(1, 2).unflatten(2, (old, old))
    resized = nnf.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1], resized.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)
