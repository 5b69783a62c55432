"""VideoInstruct's lists of `q`, `a` and `video_id`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from internvl_chat.data.converters.forms import video_chats
from internvl_chat.data.converters.forms.conversion import Conversion


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """See `videoinstruct_records`."""
    return video_chats.videoinstruct_records(source, options.root, options.faults)


def write(record: Mapping[str, Any], where: str, options: Conversion) -> dict[str, Any]:
    """See `to_videoinstruct`."""
    return video_chats.to_videoinstruct(record, where)
