"""Texts that may not change unnoticed, and a script run as a user would, in this process.

`GOLDEN_UPDATE=1 pytest tests/golden` writes the texts anew, where a change is meant; what changed is then seen in git.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import io
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest import mock

import torch

from tests.helpers import ROOT

FILES = Path(__file__).parent / "files"
# What an earlier version wrote. It is never written anew: it stands for the files that users have.
OLD = Path(__file__).parent / "old"


def check_frozen(name: str, text: str) -> None:
    """Compare a text with the one of that name under `files/`, or write it there if it is to be updated."""
    path = FILES / name
    if os.environ.get("GOLDEN_UPDATE"):
        path.write_text(text, encoding="utf-8")
    expected = path.read_text(encoding="utf-8").splitlines()
    changes = difflib.unified_diff(expected, text.splitlines(), f"files/{name}", "now", lineterm="", n=1)
    assert not (shown := "\n".join(changes)), f"changed, GOLDEN_UPDATE=1 if it is meant to:\n{shown}"


def digest(content: bytes) -> str:
    """Enough of a hash to tell contents apart, and to be read in a diff."""
    return hashlib.sha256(content).hexdigest()[:16]


def described(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """A line a tensor: name, dtype and shape."""
    return [f"{name} {str(t.dtype).removeprefix('torch.')} {list(t.shape)}" for name, t in sorted(tensors.items())]


def run_script(script: str, argv: Sequence[str]) -> str:
    """What a script of the repository prints; it must end well."""
    printed = io.StringIO()
    path = str(ROOT / script)
    # The training script tells accelerate through the environment what it is to use.
    environment = mock.patch.dict(os.environ)
    with environment, mock.patch.object(sys, "argv", [path, *argv]), contextlib.redirect_stdout(printed):
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            assert not end.code, end.code
    return printed.getvalue()
