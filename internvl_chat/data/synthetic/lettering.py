"""Text in one size from several fonts: the first font that has a character draws it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import regex
from PIL import ImageDraw, ImageFont, features

from internvl_chat.contracts import UserError

# What stands for a character that no font has: it is told, and it is seen.
REPLACEMENT = "\ufffd"

RIGHT_TO_LEFT = frozenset(("R", "AL"))
_LEFT_TO_RIGHT = frozenset(("L", "EN"))
# Written but not seen: joiners, direction marks, variation selectors. Shaping uses them up, but for fillers and
# overlaps, which it draws as boxes where a font lacks them, as it does format characters that are seen (U+06DD).
_UNSEEN = regex.compile(
    r"(?V1)[\p{Default_Ignorable_Code_Point}--[\u115f\u1160\u180f\u3164\uffa0\U0001bca0-\U0001bca3]]"
)
_CLUSTER = regex.compile(r"\X")
_WIDTHS_KEPT = 100_000


def clusters(text: str) -> list[str]:
    """What a reader takes for one character each: letters with their marks, emoji with their modifiers.

    Source: Unicode Standard Annex 29, extended grapheme clusters.
    """
    return _CLUSTER.findall(text)


@dataclass(frozen=True)
class _Run:
    """Neighbouring characters of one font and one direction."""

    text: str
    font: int
    is_rtl: bool


class Lettering:
    """Measures and draws single lines.

    Args:
        paths: font files, the preferred one first.
        size_px: the fonts' size.
    Raises:
        UserError: a file is no font, or Pillow lacks the layout engine.
    """

    def __init__(self, paths: Sequence[Path], size_px: int) -> None:
        from matplotlib.ft2font import FT2Font

        if not features.check("raqm"):
            raise UserError("this Pillow lays out text without raqm (joined letters, both directions): install a wheel")
        self._fonts: list[ImageFont.FreeTypeFont] = []
        self._covered: list[frozenset[str]] = []
        for path in paths:
            try:
                font = ImageFont.truetype(str(path), size_px, layout_engine=ImageFont.Layout.RAQM)
                characters = FT2Font(str(path)).get_charmap()
            except (OSError, RuntimeError) as error:
                raise UserError(f"{path}: is no usable font ({error}): give .ttf, .otf or .ttc files") from error
            self._fonts.append(font)
            self._covered.append(frozenset(map(chr, characters)))
        # How much lower each font's ascender line lies than the first one's, so that all stand on one baseline.
        self._drops_px = [self._fonts[0].getmetrics()[0] - font.getmetrics()[0] for font in self._fonts]
        self._all = frozenset().union(*self._covered)
        self.width = lru_cache(_WIDTHS_KEPT)(self._width)

    def without_missing(self, text: str) -> tuple[str, list[str]]:
        """The text with `REPLACEMENT` for each character that no font has, and these characters in their order."""
        odd = frozenset(text) - self._all
        missing = {character for character in odd if not self._is_drawn(character, self._all)}
        if not missing:
            return text, []
        found = [character for character in text if character in missing]
        return "".join(REPLACEMENT if character in missing else character for character in text), found

    def box(self, line: str, is_rtl: bool = False) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of a line, from where its pen starts and from its ascender line, pixels."""
        left, top, right, bottom, at = 0.0, 0.0, 0.0, 0.0, 0.0
        for run in self._visual_runs(line, is_rtl):
            font = self._fonts[run.font]
            ink = font.getbbox(run.text, direction=_direction(run, is_rtl))
            drop = self._drops_px[run.font]
            left, right = min(left, at + ink[0]), max(right, at + ink[2])
            top, bottom = min(top, drop + ink[1]), max(bottom, drop + ink[3])
            at += font.getlength(run.text, direction=_direction(run, is_rtl))
        return left, top, max(right, at), bottom

    def draw(self, pen: ImageDraw.ImageDraw, at_px: tuple[float, float], line: str, is_rtl: bool = False) -> None:
        """Draw a line in black, its left end and its ascender line at `at_px`."""
        x, y = at_px
        for run in self._visual_runs(line, is_rtl):
            font, direction = self._fonts[run.font], _direction(run, is_rtl)
            pen.text((x, y + self._drops_px[run.font]), run.text, fill="black", font=font, direction=direction)
            x += font.getlength(run.text, direction=direction)

    def _width(self, text: str) -> float:
        return sum(self._fonts[number].getlength(part) for number, part in self._parts(text))

    def _is_drawn(self, character: str, covered: frozenset[str]) -> bool:
        if character in covered or _UNSEEN.match(character):
            return True
        # Shaping puts a letter together from its parts where a font has only these.
        parts = unicodedata.normalize("NFD", character)
        return len(parts) > 1 and covered.issuperset(parts)

    def _font_of(self, cluster: str) -> int:
        for number, covered in enumerate(self._covered):
            if covered.issuperset(cluster) or all(self._is_drawn(character, covered) for character in cluster):
                return number
        # No font has all of it: a letter and its mark come from the font that has the letter.
        first = (n for n, covered in enumerate(self._covered) if self._is_drawn(cluster[0], covered))
        return next(first, 0)

    def _parts(self, text: str) -> Iterator[tuple[int, str]]:
        """Font and text of neighbouring clusters that one font draws."""
        if self._covered[0].issuperset(text):
            yield 0, text
            return
        for number, run in groupby(clusters(text), key=self._font_of):
            yield number, "".join(run)

    def _visual_runs(self, line: str, is_rtl: bool) -> list[_Run]:
        """A line's runs from left to right.

        One font's line is one run, whose directions the layout engine sorts out by Unicode's full rules. Where fonts
        change, two levels are told apart: stretches against the line's direction keep their own order within it.
        """
        parts = list(self._parts(line))
        if len(parts) <= 1:
            return [_Run(text, number, is_rtl) for number, text in parts]
        runs = []
        for stretch_is_rtl, stretch in groupby(_directed(line, is_rtl), key=lambda pair: pair[1]):
            text = "".join(character for character, _ in stretch)
            inner = [_Run(part, number, stretch_is_rtl) for number, part in self._parts(text)]
            runs.append(inner[::-1] if stretch_is_rtl else inner)
        return [run for stretch in (runs[::-1] if is_rtl else runs) for run in stretch]


def _direction(run: _Run, line_is_rtl: bool) -> str | None:
    """What the layout engine is told; without right-to-left letters nothing, as the plain call has it."""
    return "rtl" if run.is_rtl else "ltr" if line_is_rtl else None


def _directed(line: str, is_rtl: bool) -> list[tuple[str, bool]]:
    """Each character with whether it runs from right to left; marks, signs and spaces go with what surrounds them."""
    own: list[bool | None] = []
    for character in line:
        kind = unicodedata.bidirectional(character)
        if kind == "NSM" and own:
            own.append(own[-1])
        else:
            own.append(True if kind in RIGHT_TO_LEFT else False if kind in _LEFT_TO_RIGHT else None)
    directed, before = [], is_rtl
    following = [is_rtl] * (len(line) + 1)
    for place in range(len(line) - 1, -1, -1):
        kind_here = own[place]
        following[place] = following[place + 1] if kind_here is None else kind_here
    for place, character in enumerate(line):
        kind_here = own[place]
        # Between two of one direction a sign goes with them, and with the line otherwise.
        chosen = (before if before == following[place] else is_rtl) if kind_here is None else kind_here
        directed.append((character, chosen))
        before = chosen if kind_here is None else kind_here
    return directed
