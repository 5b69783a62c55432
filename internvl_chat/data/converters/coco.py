"""COCO's detection sets: a question for all objects of each picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from internvl_chat.data.converters.forms import detection
from internvl_chat.data.converters.forms.conversion import Conversion


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """See `coco_records`."""
    return detection.coco_records(source, options.root, options.faults)
