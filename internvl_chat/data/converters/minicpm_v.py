"""MiniCPM-V's lists with a dictionary of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from internvl_chat.data.converters.forms import image_chats
from internvl_chat.data.converters.forms.conversion import Conversion


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """See `minicpmv_records`."""
    return image_chats.minicpmv_records(source, options.root, options.faults)


def write(record: Mapping[str, Any], where: str, options: Conversion) -> dict[str, Any]:
    """See `to_minicpmv`."""
    return image_chats.to_minicpmv(record, where, image_chats.FramesShown(options.root, options.num_frames))
