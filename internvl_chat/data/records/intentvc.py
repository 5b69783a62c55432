"""IntentVC's folders and names: where a video of the challenge lies, and how the prompt calls its object."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from internvl_chat.boxes import BOX_ARRAY_NAME

# In the dataset's root: the captions of the test videos, for who has them.
REFERENCES_NAME = "references_test.json"

# How the prompt calls a category whose folder name is no English word; a meta JSON can add its own `object_names`.
OBJECT_NAMES = {
    "electricfan": "electric fan",
    "racing": "racing car",
    "rubicCube": "rubik's cube",
    "pool": "pool ball",
    "gametarget": "game character",
}

# A video's number within its category.
_NUMBER = re.compile(r"-[0-9]+$")


def category_of(video_id: str) -> str:
    """`airplane-15` -> `airplane`, `traffic-light-2` -> `traffic-light`: what stands before the dash and number."""
    return _NUMBER.sub("", video_id)


def is_video_id(text: str) -> bool:
    """Whether this is a category, a dash and a number, as the challenge calls its videos: `dog-1`."""
    return _NUMBER.search(text) is not None and bool(category_of(text)) and "/" not in text


def object_name_of(category: str, extra_names: Mapping[str, str] | None = None) -> str:
    """How the prompt calls a category."""
    return {**OBJECT_NAMES, **(extra_names or {})}.get(category, category)


def video_path_of(root: Path, video_id: str) -> Path:
    """Where a video of the challenge lies: `ROOT/airplane/airplane-15/airplane-15.mp4`."""
    return root / category_of(video_id) / video_id / f"{video_id}.mp4"


def boxes_path_of(video_path: Path, root: Path | None = None, boxes_root: Path | None = None) -> Path:
    """The box track beside a video; or below `boxes_root`, a folder like `root`, where the data cannot be written to.

    Args:
        root: of the dataset.
    """
    beside = video_path.with_name(BOX_ARRAY_NAME)
    return beside if root is None or boxes_root is None else boxes_root / beside.relative_to(root)
