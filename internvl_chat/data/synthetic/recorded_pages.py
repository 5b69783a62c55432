"""Recorded layouts of texts by T2Vid: lines and pictures are the same where they fit; where not, nothing is cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from internvl_chat.contracts import UserError
from internvl_chat.data.media.fonts import font_files
from internvl_chat.data.synthetic.text_pages import Page, PageStyle, draw_page, lay_out, legible

# Mean difference of grey values, of 255, that versions of Pillow and FreeType make.
_GREY_TOLERANCE = 0.5
_FIELDS = ("text", "lines", "total_height", "first_line_y", "image", "overflows")


def check_pages(case: Mapping[str, Any], path: Path) -> Iterator[tuple[str, str]]:
    """Each record's name, and how its pages differ from those recorded; empty where they do not.

    Args:
        case: `font`, a file's name, `font_size`, `image_size` and `text_width` in pixels, and `records`.
        path: where it was read, beside its pictures.
    Raises:
        UserError: a field is missing, the font is none of the default ones, or a picture cannot be read.
    """
    try:
        fonts = [font for font in font_files() if font.name == case["font"]]
        side_px, margin_px = case["image_size"][0], (case["image_size"][0] - case["text_width"]) // 2
        font_px, records = case["font_size"], [[record[name] for name in _FIELDS] for record in case["records"]]
        names = [record.get("name", f"record {number}") for number, record in enumerate(case["records"])]
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path}: is no case of texts as pictures ({error!r})") from error
    if not fonts:
        known = ", ".join(font.name for font in font_files())
        raise UserError(f"{path}: its font is {case['font']!r}: expected one of {known}")
    style = PageStyle(tuple(fonts), font_px, side_px, margin_px)
    for name, (text, lines, height, first_y, image, overflows) in zip(names, records, strict=True):
        pages = lay_out(legible(text, style).text, style)
        faults = list(_differences(pages, style, lines, height))
        if overflows:
            faults += [] if len(pages) > 1 else ["stands on one page, where the original's is too small"]
        elif len(pages) != 1 or (side_px - pages[0].height_px) / 2 != first_y:
            faults.append(f"{len(pages)} pages: expected one, its first line at {first_y}")
        else:
            faults += _picture_faults(draw_page(pages[0], style), path.parent / image)
        yield name, "; ".join(faults)


def _differences(pages: list[Page], style: PageStyle, lines: list[str], height: float) -> Iterator[str]:
    got = [line.text for page in pages for line in page.lines]
    if got != lines:
        pairs = enumerate(zip(got, lines, strict=False))
        first = next((n for n, (a, b) in pairs if a != b), min(len(got), len(lines)))
        yield f"lines differ from line {first + 1} ({len(got)} for {len(lines)})"
    if sum(page.height_px for page in pages) != height:
        yield f"{sum(page.height_px for page in pages):g} px high for {height:g}"
    if any(page.height_px > style.page_px for page in pages):
        yield "a page is cut off"


def _picture_faults(drawn: Image.Image, path: Path) -> list[str]:
    try:
        with Image.open(path) as picture:
            expected = np.asarray(picture.convert("L"), dtype=int)
    except OSError as error:
        raise UserError(f"{path}: cannot be read as a picture ({error})") from error
    got = np.asarray(drawn, dtype=int)
    if got.shape != expected.shape:
        return [f"a picture of {got.shape} pixels for {expected.shape}"]
    mean = float(np.abs(got - expected).mean())
    return [] if mean < _GREY_TOLERANCE else [f"grey values differ by {mean:.2f} of 255 in the mean"]
