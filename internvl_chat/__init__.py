"""Fine-tuning vision-language models so that a box decides what the caption is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from internvl_chat.api import Captioner as Captioner

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """`internvl_chat.Captioner`, without torch being imported by whoever only asks for `--help`."""
    if name == "Captioner":
        from internvl_chat.command_line import libraries_quiet

        with libraries_quiet():
            from internvl_chat.api import Captioner

        return Captioner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
