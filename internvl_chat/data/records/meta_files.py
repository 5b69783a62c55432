"""Writing a meta JSON: where records and their files lie, readable from any folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from internvl_chat.files import write_json


def write_meta(path: Path, name: str, root: Path, annotation: Path, **settings: Any) -> None:
    """Write a meta JSON of one dataset; its paths are absolute, so that it means the same wherever it is read.

    Args:
        settings: further keys of the entry, such as `length`.
    """
    paths = {"root": str(root.absolute()), "annotation": str(annotation.absolute())}
    write_json(path, {name: {**paths, **settings}})
