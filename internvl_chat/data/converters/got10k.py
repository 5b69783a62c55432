"""GOT-10k's folders of tracked videos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from internvl_chat.data.converters.forms import tracking
from internvl_chat.data.converters.forms.conversion import Conversion


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """See `got10k_records`."""
    return tracking.got10k_records(source, options.root, options.question, options.faults)
