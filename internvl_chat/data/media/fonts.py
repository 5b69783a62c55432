"""The fonts that text in pictures is drawn with: those that come with matplotlib, and may be handed on."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from PIL import ImageFont


def font_files() -> tuple[Path, ...]:
    """DejaVu Sans, for European scripts, Arabic and Hebrew among others, and STIX for mathematical signs."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return (folder / "DejaVuSans.ttf", folder / "STIXGeneral.ttf")


@lru_cache
def label_font(size_px: int) -> ImageFont.FreeTypeFont:
    """The font of names and captions beside pictures; Pillow's own has letters of ASCII alone."""
    return ImageFont.truetype(str(font_files()[0]), size_px)
