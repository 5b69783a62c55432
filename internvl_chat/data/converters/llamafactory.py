"""LLaMA-Factory's message lists, sharegpt and alpaca style."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from internvl_chat.data.converters.forms import chats
from internvl_chat.data.converters.forms.conversion import Conversion


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """See `llamafactory_records`."""
    return chats.llamafactory_records(source, options.root, options.faults)
