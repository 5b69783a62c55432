"""Pickles of other projects that hold an array: nothing but numpy's arrays is ever built from them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from internvl_chat.contracts import UserError

# What an array's pickle calls, in numpy 1 and 2; `encode` turns text of old protocols back to bytes.
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        module_name = module_name.replace("numpy.core", "numpy._core")
        if (module_name, global_name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"asks for {module_name}.{global_name}, and not for an array alone")
        return super().find_class(module_name, global_name)


def read_array(path: Path) -> npt.NDArray[np.floating]:
    """The floating-point array of a pickle.

    Raises:
        UserError: it holds anything else, or is cut off.
    """
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file).load()
    # What broken bytes make an unpickler raise is no closed list; these are what its opcodes and numpy raise.
    except (pickle.UnpicklingError, OSError, EOFError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise UserError(f"{path}: is no pickle of one array ({error})") from error
    if not isinstance(content, np.ndarray) or content.dtype.kind != "f":
        raise UserError(f"{path}: holds {type(content).__name__}, expected an array of floating-point numbers")
    return content
