"""From a folder or hub id in either layout to a model: told apart, checked against its configuration, then read.

Everything that can be wrong with the files is found from their headers, before a weight is read.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, StrictDataclassError
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_utils import set_zero3_state
from transformers.utils import logging as hf_logging

from internvl_chat.contracts import UserError
from internvl_chat.families import CONFIG_NAME, family_in, family_of, family_of_fields, is_hub_id, read_config_file
from internvl_chat.model.conversion.weight_files import LazyTensor, stored_weights
from internvl_chat.model.conversion.weight_map import fold_lora
from internvl_chat.model.memory.rms_norm import fuse_norms
from internvl_chat.model.rotary_frequencies import restore_precision

logger = logging.getLogger(__name__)

_HUB_FILES = ("*.json", "*.safetensors", "*.bin", "*.model", "*.txt", "*.jinja")
_HEAD = "lm_head.weight"


def resolve_folder(model_path: str | Path) -> Path:
    """A folder as it is; the files of a hub id, downloaded if need be.

    Raises:
        UserError: neither is there, or the hub cannot be reached.
    """
    folder = Path(model_path)
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(str(model_path), allow_patterns=list(_HUB_FILES)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        if isinstance(error, LocalEntryNotFoundError) and is_hub_id(str(model_path)):
            raise UserError(
                f"{model_path}: is no folder here, and the hub cannot be asked for it ({reason}): download it where "
                "there is a network, and give its folder"
            ) from error
        raise UserError(f"{model_path}: is neither a checkpoint folder nor a model of the hub ({reason})") from error


def load_config(model_path: str | Path) -> PreTrainedConfig:
    """The configuration of a base, a merged model or a training checkpoint, in either layout.

    Raises:
        UserError: nothing is there, or it is of no known family.
    """
    folder = resolve_folder(model_path)
    fields = read_config_file(folder)
    family = family_of_fields(fields, model_path)
    try:
        if family.original.is_original(fields):
            return family.original.native_config(fields, folder)
        # Registers its classes of configuration, so that the folder's is known.
        _ = family.configuration
        return AutoConfig.from_pretrained(folder)
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder / CONFIG_NAME}: is no valid configuration ({reason})") from error


def with_modules(config: PreTrainedConfig, modules: Iterable[str]) -> None:
    """Ask, in place, for the modules of controls that a model is to have.

    Raises:
        UserError: the family has no place for one of them.
    """
    for name in modules:
        ask_for = getattr(family_of(config).configuration, f"with_{name}", None)
        if ask_for is None:
            raise UserError(f"--{name}: {family_of(config).name} has no place for it; give --{name} 0")
        ask_for(config)


def tower_of(folder: Path, base_path: str | None = None) -> Callable[[], Sequence[float]] | None:
    """What tells a model's tower from others, read when it is asked for; None where it reads no features of videos.

    Args:
        base_path: where the base of a training checkpoint lies now, if it was moved.
    """
    features = family_in(folder).features
    return None if features is None else partial(features.tower_mark, folder, base_path)


def own_config(config: PreTrainedConfig) -> Any:
    """The configuration of the captioner that a complete model is, with as many box adapters as it has."""
    of_family = family_of(config).configuration
    return of_family.captioner_config(config, of_family.num_adapters(config))


def open_native(folder: Path, base_path: str | None = None) -> dict[str, LazyTensor]:
    """The tensors of a complete model in either layout, under their native names; LoRA's pairs as they are.

    Args:
        base_path: where the rest of it lies, if the original's layout keeps a part alone and that was moved.
    Raises:
        UserError: the weights cannot be read, or are not the family's.
    """
    original = family_in(folder).original
    if not original.is_original(read_config_file(folder)):
        return {original.hub_to_native(name): tensor for name, tensor in stored_weights(folder).items()}
    try:
        return original.open_original(folder, load_config(folder), base_path)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error


def base_fingerprint(tensors: Mapping[str, LazyTensor], config: PreTrainedConfig) -> str:
    """A short hash that tells bases apart, whatever layout they are stored in: all shapes, and a few small tensors.

    Args:
        config: says of which family the tensors are, and so which of them are read.
    """
    parts = family_of(config).parts
    digest = hashlib.sha256()
    for name in sorted(name for name in tensors if not parts.NAMES.is_added(name) and ".lora_" not in name):
        digest.update(f"{name.replace('.base_layer.', '.')} {list(tensors[name].shape)}\n".encode())
    for name in parts.FINGERPRINTED:
        tensor = tensors.get(name, tensors.get(name.replace(".weight", ".base_layer.weight")))
        if tensor is not None:
            digest.update(tensor.read().to(torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def with_vocabulary(config: Any, num_tokens: int, image_token_id: int) -> None:
    """Make room for a tokenizer's tokens; the new rows are added when the weights are read. Padding rows are kept.

    Args:
        image_token_id: of the family's image token, looked up in that tokenizer.
    """
    added = max(0, num_tokens - config.text_config.vocab_size)
    config.text_config.vocab_size += added
    config.num_added_tokens += added
    config.image_token_id = image_token_id


def load_weights(
    folder: Path,
    config: Any,
    tensors: Mapping[str, LazyTensor],
    *,
    dtype: torch.dtype,
    added_may_lack: bool = False,
    attn_implementation: str | None = None,
    device: torch.device | None = None,
    **settings: Any,
) -> PreTrainedModel:
    """Build the model of `config` from the native `tensors` of `folder`, one tensor at a time.

    Args:
        added_may_lack: added modules that the files do not have are initialised.
        device: where each tensor goes as it is read: the ranks of a machine never hold whole models in its memory.
            None is the CPU. Under ZeRO-3 DeepSpeed has a place of its own for each rank's share.
        settings: of transformers' `from_pretrained`, such as how the weights are quantized.
    Raises:
        UserError: tensors are missing, unknown, or of another shape than the configuration says.
    """
    tensors = fold_lora(tensors)
    # A checkpoint without an output layer shares the embeddings; one that has both may have trained them apart.
    tied = _HEAD not in tensors
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = tied
    expected = expected_shapes(config)
    _fit_tables(tensors, config, expected)
    _check_fit(tensors, expected, folder, config, tied, added_may_lack)
    if device is not None and device.type != "cpu" and not is_deepspeed_zero3_enabled():
        settings["device_map"] = {"": device}
    with _without_load_report():
        model = family_of(config).model.Captioner.from_pretrained(
            None, config=config, state_dict=tensors, dtype=dtype, attn_implementation=attn_implementation, **settings
        )
    restore_precision(model)
    fuse_norms(model)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    note = family_of(config).parts.note(config)
    if note:
        logger.warning("%s: %s", folder, note)
    return model


@contextmanager
def _without_load_report() -> Iterator[None]:
    """transformers lists new adapters as missing weights; what may be missing was checked before.

    Nor does it draw a bar of the tensors where nobody looks on.
    """
    verbosity, has_bar = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    if has_bar and not sys.stderr.isatty():
        hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if has_bar:
            hf_logging.enable_progress_bar()


def check_weights(folder: Path, config: PreTrainedConfig, tensors: Mapping[str, LazyTensor]) -> None:
    """Hold the native `tensors` of `folder` against its configuration; none is read.

    Raises:
        UserError: tensors are missing, unknown, or of another shape than the configuration says.
    """
    config = own_config(config)
    folded = fold_lora(tensors)
    _check_fit(folded, expected_shapes(config), folder, config, tied=_HEAD not in folded)


def fit_tables(tensors: Mapping[str, LazyTensor], config: Any) -> dict[str, LazyTensor]:
    """A base's tensors with tables resized and the vocabulary's rows added as `config` asks for."""
    fitted = dict(tensors)
    _fit_tables(fitted, config, expected_shapes(config))
    return fitted


def expected_shapes(config: Any) -> dict[str, torch.Size]:
    """The shape of every tensor of a model, by its native name; nothing is allocated."""
    # Marked as already under ZeRO-3's hand: it would partition the meta tensors of the inner models.
    with set_zero3_state(), init.no_init_weights(), torch.device("meta"):
        model = family_of(config).model.Captioner(config)
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _check_fit(
    tensors: Mapping[str, LazyTensor],
    expected: Mapping[str, torch.Size],
    folder: Path,
    config: PreTrainedConfig,
    tied: bool,
    added_may_lack: bool = False,
) -> None:
    is_added = family_of(config).parts.NAMES.is_added

    def optional(name: str) -> bool:
        return (added_may_lack and is_added(name)) or (tied and name == _HEAD)

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


def _fit_tables(tensors: dict[str, LazyTensor], config: Any, expected: Mapping[str, torch.Size]) -> None:
    """Bring the tables that depend on tile size and vocabulary to the configuration's, where it asks for it."""
    parts = family_of(config).parts
    for name in (parts.NAMES.embedding_table, _HEAD):
        if config.num_added_tokens and name in tensors:
            rows, width = tensors[name].shape
            shape = torch.Size((rows + config.num_added_tokens, width))
            tensors[name] = tensors[name].map(shape, partial(append_mean_rows, count=config.num_added_tokens))
    parts.fit_tables(tensors, expected)


def append_mean_rows(table: torch.Tensor, count: int) -> torch.Tensor:
    """A table [N, D] with `count` rows more, each the mean of the others, taken in at least fp32."""
    mean = table.to(torch.promote_types(table.dtype, torch.float32)).mean(0, keepdim=True).to(table.dtype)
    return torch.cat([table, mean.expand(count, -1)])
