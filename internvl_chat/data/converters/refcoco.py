"""RefCOCO's phrases, each with the region that it describes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from internvl_chat.data.converters.forms import detection
from internvl_chat.data.converters.forms.conversion import Conversion


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """See `refcoco_records`."""
    return detection.refcoco_records(source, options.root, options.faults)
