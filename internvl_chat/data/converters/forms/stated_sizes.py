"""Sizes of pictures that other projects state beside their boxes, held against the pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from internvl_chat.contracts import UserError
from internvl_chat.data.media.pictures import PICTURE_SUFFIXES, picture_size
from internvl_chat.data.media.sources import frame_files
from internvl_chat.data.media.video import read_header


def shown_sizes(path: Path) -> list[tuple[int, int]]:
    """Width and height of a video, a folder of frames or a picture: as shown, and as stored."""
    if path.is_dir():
        path = frame_files(path)[0]
    if path.suffix.lower() in PICTURE_SUFFIXES:
        shown, display = picture_size(path)
        return [shown, display.stored_size(*shown)]
    header = read_header(path)
    return [header.size_px, header.stored_px]


def check_stated_size(
    path: Path,
    size_px: tuple[Any, Any],
    where: str,
    sizes_of: Callable[[Path], list[tuple[int, int]]] = shown_sizes,
) -> None:
    """Hold the size that a source says its boxes were counted in against a video, a folder of frames, or a picture.

    Args:
        size_px: width and height; what is no number above 0 says nothing.
        sizes_of: what remembers them, where many objects are of one video.
    Raises:
        UserError: it is shown, and stored, in another one.
    """
    if not all(type(side) is int and side > 0 for side in size_px):
        return
    sizes = sizes_of(path)
    if tuple(size_px) not in sizes:
        shown = " x ".join(map(str, sizes[0]))
        raise UserError(
            f"{where}: says {size_px[0]} x {size_px[1]} pixels, {path} has {shown}: expected boxes counted in that size"
        )
