"""LLaVA's lists with `<video>` and a path, Video-ChatGPT's too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from internvl_chat.data.converters.forms import video_chats
from internvl_chat.data.converters.forms.conversion import Conversion


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """See `llava_records`."""
    return video_chats.llava_records(source, options.root, options.faults)


def write(record: Mapping[str, Any], where: str, options: Conversion) -> dict[str, Any]:
    """See `to_llava`."""
    return video_chats.to_llava(record, where)
