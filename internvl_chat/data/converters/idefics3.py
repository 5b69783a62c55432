"""Idefics3's chats with pictures in their messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from internvl_chat.data.converters.forms import image_chats
from internvl_chat.data.converters.forms.conversion import Conversion


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """See `idefics3_records`."""
    return image_chats.idefics3_records(source, options.root, options.faults)


def write(record: Mapping[str, Any], where: str, options: Conversion) -> dict[str, Any]:
    """See `to_idefics3`."""
    return image_chats.to_idefics3(record, where, image_chats.FramesShown(options.root, options.num_frames))
