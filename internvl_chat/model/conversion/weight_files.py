"""Weights in shards: read one tensor at a time, written one shard at a time.

A `LazyTensor` knows its shape from the file's header and is read when it is indexed or used, so a checkpoint can be
renamed, split, checked and written out while no more than the tensors in hand are in memory.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils._pytree import tree_map_only

from internvl_chat.contracts import UserError
from internvl_chat.files import replacing

SAFETENSORS_NAME, BIN_NAME = "model.safetensors", "pytorch_model.bin"
INDEX_SUFFIX = ".index.json"
_BUFFERS = ("rotary_emb.inv_freq", "embeddings.position_ids")

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is read where it is indexed, or handed to a torch function.

    Args:
        read: reads, and where need be computes, the whole tensor.
    """

    shape: torch.Size
    dtype: torch.dtype
    read: Callable[[], torch.Tensor]

    def __getitem__(self, index: Any) -> torch.Tensor:
        return self.read()[index]

    @property
    def nbytes(self) -> int:
        return self.shape.numel() * self.dtype.itemsize

    def map(self, shape: torch.Size, change: Callable[[torch.Tensor], torch.Tensor]) -> LazyTensor:
        """The tensor of `shape` that `change` makes of this one, when it is read."""
        return LazyTensor(shape, self.dtype, lambda: change(self.read()))

    def to(self, dtype: torch.dtype) -> LazyTensor:
        """The tensor in another dtype."""
        return LazyTensor(self.shape, dtype, lambda: self.read().to(dtype))

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Read it now; under ZeRO-3 torch copies tensors into gathered parameters one by one."""
        args, kwargs = tree_map_only(cls, lambda lazy: lazy.read(), (args, kwargs or {}))
        return function(*args, **kwargs)


def has_weights(folder: Path) -> bool:
    """Whether a folder holds weights, whole or in shards."""
    names = (SAFETENSORS_NAME, BIN_NAME)
    return any((folder / file).is_file() for name in names for file in (name, name + INDEX_SUFFIX))


def open_weights(folder: Path) -> dict[str, LazyTensor]:
    """The tensors of a folder, single file or shards, safetensors or `.bin`; only headers are read.

    Raises:
        UserError: the folder holds no weights, a shard is missing or cut off, or a tensor is not in its shard.
    """
    for name, open_file in ((SAFETENSORS_NAME, open_safetensors), (BIN_NAME, open_bin)):
        if (folder / (name + INDEX_SUFFIX)).is_file():
            return _open_shards(folder, name + INDEX_SUFFIX, open_file)
        if (folder / name).is_file():
            return open_file(folder / name)
    raise UserError(
        f"{folder}: holds no weights: expected {SAFETENSORS_NAME} or {BIN_NAME}, or one of them in shards "
        f"with its {INDEX_SUFFIX[1:]}; was the download complete?"
    )


def stored_weights(folder: Path) -> dict[str, LazyTensor]:
    """The tensors of a folder, without buffers that old versions stored and that follow from the configuration.

    Raises:
        UserError: as `open_weights`.
    """
    return {name: tensor for name, tensor in open_weights(folder).items() if not name.endswith(_BUFFERS)}


def _open_shards(
    folder: Path, index_name: str, open_file: Callable[[Path], dict[str, LazyTensor]]
) -> dict[str, LazyTensor]:
    try:
        shard_of: dict[str, str] = json.loads((folder / index_name).read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder / index_name}: is no index of shards ({error!r}); download it again") from error
    shards = sorted(set(shard_of.values()))
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of {len(shards)} shards are missing, such as {missing[0]}; download them again"
        )
    tensors: dict[str, LazyTensor] = {}
    for shard in shards:
        tensors |= open_file(folder / shard)
    absent = sorted(shard_of.keys() - tensors.keys())
    if absent:
        raise UserError(f"{folder / shard_of[absent[0]]}: lacks {absent[0]}, which {index_name} places there")
    return tensors


def open_safetensors(path: Path) -> dict[str, LazyTensor]:
    """The tensors of one file; only its header is read.

    Raises:
        UserError: it is missing, cut off, or no safetensors file.
    """
    tensors = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (not a mapping)
                header = file.get_slice(name)
                dtype = _DTYPES.get(header.get_dtype())
                if dtype is None:
                    raise UserError(f"{path}: {name} is {header.get_dtype()}, which is not a known floating type")
                tensors[name] = LazyTensor(torch.Size(header.get_shape()), dtype, partial(_read_safetensor, path, name))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: is cut off or no safetensors file ({error}); download it again") from error
    return tensors


def _read_safetensor(path: Path, name: str) -> torch.Tensor:
    # The file is opened anew for every tensor: an open one keeps all its pages that were ever read mapped.
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)


def open_bin(path: Path) -> dict[str, LazyTensor]:
    """The tensors of one `.bin` file; they are mapped where torch can.

    Raises:
        UserError: it is missing, cut off, or holds anything but tensors.
    """
    return {
        name: LazyTensor(tensor.shape, tensor.dtype, partial(_read_bin, path, name))
        for name, tensor in _load_bin(path).items()
    }


def _read_bin(path: Path, name: str) -> torch.Tensor:
    # A copy, so that the file's pages can be given back with the next shard.
    return _load_bin(path)[name].clone()


@lru_cache(maxsize=1)
def _load_bin(path: Path) -> dict[str, torch.Tensor]:
    try:
        # Only torch's zip format can be mapped; older files are read whole.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path}: is cut off or no file of tensors ({type(error).__name__}); download it again"
        ) from error


def write_weights(folder: Path, tensors: Mapping[str, LazyTensor], max_shard_bytes: int) -> int:
    """Write tensors as safetensors, one shard in memory at a time.

    Returns:
        The number of files with weights.
    """
    shards = list(_into_shards(tensors, max_shard_bytes))
    names = [SAFETENSORS_NAME]
    if len(shards) > 1:
        names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    for file_name, shard in zip(names, shards, strict=True):
        with replacing(folder / file_name) as temporary:
            save_file({name: tensors[name].read().contiguous() for name in shard}, temporary, {"format": "pt"})
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
            "weight_map": {name: file for file, shard in zip(names, shards, strict=True) for name in shard},
        }
        (folder / (SAFETENSORS_NAME + INDEX_SUFFIX)).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return len(shards)


def _into_shards(tensors: Mapping[str, LazyTensor], max_shard_bytes: int) -> Iterator[list[str]]:
    shard: list[str] = []
    size = 0
    for name, tensor in tensors.items():
        if shard and size + tensor.nbytes > max_shard_bytes:
            yield shard
            shard, size = [], 0
        shard.append(name)
        size += tensor.nbytes
    yield shard
