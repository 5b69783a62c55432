"""Long texts laid out on pictures: words fill lines, lines fill pages, and nothing is cut off.

Source: T2Vid (arXiv 2411.19951): at most 115 words a picture, black on white, 448 pixels a side, 20-pixel letters,
lines filled greedily and centred between top and bottom. Where that is higher than the picture, the first and last line
are cut off there; here the text goes on on the next picture, and a word wider than a line is broken.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import regex
from PIL import Image, ImageDraw

from internvl_chat.contracts import UserError
from internvl_chat.data.media.fonts import font_files
from internvl_chat.data.synthetic.lettering import REPLACEMENT, RIGHT_TO_LEFT, Lettering, clusters

# Scripts without spaces: a line may break between any two of their characters, and each counts as a word.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}"
# Signs that may not begin a line.
_CLOSING = r"\p{Pe}\p{Pf}\p{Po}\p{Lm}\p{M}"
_BREAKS = regex.compile(rf"(?<=[{_UNSPACED}{_CLOSING}])(?=[{_UNSPACED}])|(?<=[{_UNSPACED}])(?=[^{_CLOSING}])")
_WHITE = regex.compile(r"[\s\p{Zl}\p{Zp}\x1c-\x1f]+")
# Other control characters, and halves of pairs: no font can have them.
_UNDRAWABLE = regex.compile("[\\p{Cc}\ud800-\udfff]")
# No line is longer; text beyond it is broken without being measured whole.
_LONGEST_PIECE = 1000


@dataclass(frozen=True)
class PageStyle:
    """How pages look.

    Args:
        fonts: font files; the first that has a character draws it.
        font_px: size of the letters.
        page_px: side of the square picture.
        margin_px: left and right of the text.
        max_words: most words of a page.
    Raises:
        UserError: no text would fit.
    """

    fonts: tuple[Path, ...] = field(default_factory=font_files)
    font_px: int = 20
    page_px: int = 448
    margin_px: int = 20
    max_words: int = 115

    def __post_init__(self) -> None:
        if 2 * self.margin_px + 2 * self.font_px > self.page_px:
            raise UserError(
                f"letters of {self.font_px} px between margins of {self.margin_px} px do not fit pictures of "
                f"{self.page_px} px: take larger pictures, or smaller letters"
            )

    @property
    def text_px(self) -> int:
        """Width of a line."""
        return self.page_px - 2 * self.margin_px


@dataclass(frozen=True)
class Line:
    """A line of a page: how far its ink reaches above and below its ascender line, pixels, and its number of words."""

    text: str
    above_px: float
    below_px: float
    num_words: int

    @property
    def height_px(self) -> float:
        return self.above_px + self.below_px


@dataclass(frozen=True)
class Page:
    """The lines of one picture."""

    lines: tuple[Line, ...]
    is_rtl: bool = False

    @property
    def height_px(self) -> float:
        return sum(line.height_px for line in self.lines)


@dataclass(frozen=True)
class Legible:
    """A text that the fonts can draw; the characters that none has or can have; how many are not spaces."""

    text: str
    missing: tuple[str, ...]
    num_characters: int


@lru_cache(maxsize=2)
def lettering_of(style: PageStyle) -> Lettering:
    """The fonts of a style, opened once a process."""
    return Lettering(style.fonts, style.font_px)


def legible(text: str, style: PageStyle) -> Legible:
    """White space as single spaces, and U+FFFD for every character that no font has.

    Raises:
        UserError: a font cannot be used.
    """
    plain = _WHITE.sub(" ", text)
    undrawable = _UNDRAWABLE.findall(plain)
    plain = _UNDRAWABLE.sub(REPLACEMENT, plain)
    drawn, missing = lettering_of(style).without_missing(plain)
    return Legible(drawn, (*undrawable, *missing), sum(map(len, plain.split())))


def lay_out(text: str, style: PageStyle) -> list[Page]:
    """Lay a legible text out on pages.

    Raises:
        UserError: a single character is larger than the picture.
    """
    return list(_Setter(style, _is_rtl(text)).pages(text))


def draw_page(page: Page, style: PageStyle) -> Image.Image:
    """Draw a page, grey on a square of `page_px`; lines from right to left stand at the right margin."""
    picture = Image.new("L", (style.page_px, style.page_px), "white")
    pen = ImageDraw.Draw(picture)
    lettering = lettering_of(style)
    y = (style.page_px - page.height_px) / 2
    for line in page.lines:
        x: float = style.margin_px
        if page.is_rtl:
            x = style.page_px - style.margin_px - lettering.box(line.text, True)[2]
        lettering.draw(pen, (x, y + line.above_px), line.text, page.is_rtl)
        y += line.height_px
    return picture


def _is_rtl(text: str) -> bool:
    """Whether most letters belong to scripts that are written from right to left."""
    if text.isascii():
        return False
    kinds = [unicodedata.bidirectional(character) for character in text]
    return sum(kind in RIGHT_TO_LEFT for kind in kinds) > kinds.count("L")


def _pieces(text: str) -> Iterator[str]:
    """What a line may break behind: words with a space behind them, and single characters of unspaced scripts."""
    for word in text.split():
        *inner, last = _BREAKS.split(word)
        yield from inner
        yield f"{last} "


class _Setter:
    """Sets one text: a line, and the page that it will stand on, are filled as words come."""

    def __init__(self, style: PageStyle, is_rtl: bool) -> None:
        self._style, self._is_rtl = style, is_rtl
        self._lettering = lettering_of(style)
        self._page: list[Line] = []

    def pages(self, text: str) -> Iterator[Page]:
        """Pages that are full, of words or of lines, and the last one."""
        line, line_px, num_words = "", 0.0, 0
        for piece in _pieces(text):
            is_page_full = sum(above.num_words for above in self._page) + num_words >= self._style.max_words
            piece_px = self._width(piece)
            if line and (is_page_full or line_px + piece_px > self._style.text_px):
                yield from self._add(line, num_words)
                line, line_px, num_words = "", 0.0, 0
            if is_page_full:
                yield from self._turn()
            num_words += 1
            if line:
                line, line_px = line + piece, line_px + piece_px
                continue
            *whole, line = self._broken(piece)
            for part in whole:
                yield from self._add(part, 0)
            line_px = self._width(line)
        yield from self._add(line, num_words)
        yield from self._turn()

    def _width(self, text: str) -> float:
        return self._lettering.width(text) if len(text) <= _LONGEST_PIECE else math.inf

    def _turn(self) -> Iterator[Page]:
        if self._page:
            yield Page(tuple(self._page), self._is_rtl)
        self._page = []

    def _add(self, text: str, num_words: int) -> Iterator[Page]:
        """Put a line on the page, or on a new one where it does not fit; in parts where its ink would be cut off.

        Marks may pile up higher than a page, and letters reach far out.
        """
        text = text.rstrip(" ")
        if not text:
            return
        style = self._style
        left, top, right, bottom = self._lettering.box(text, self._is_rtl)
        if left < -style.margin_px or right > style.text_px + style.margin_px or bottom - top > style.page_px:
            first, second = _halves(text, style)
            yield from self._add(first, num_words)
            yield from self._add(second, 0)
            return
        line = Line(text, -top, bottom, num_words)
        if sum(above.height_px for above in self._page) + line.height_px > style.page_px:
            yield from self._turn()
        self._page.append(line)

    def _broken(self, piece: str) -> Iterator[str]:
        """A piece as it is where it fits a line, its space left out, and in parts as wide as a line otherwise."""
        if self._width(piece.rstrip(" ")) <= self._style.text_px:
            yield piece
            return
        part, part_px = "", 0.0
        for cluster in clusters(piece):
            cluster_px = self._width(cluster)
            # Letters beside each other may be wider than each alone.
            if part and (
                part_px + cluster_px > self._style.text_px or self._width(part + cluster) > self._style.text_px
            ):
                yield part
                part, part_px = "", 0.0
            part, part_px = part + cluster, part_px + cluster_px
        yield part


def _halves(text: str, style: PageStyle) -> tuple[str, str]:
    parts: Sequence[str] = clusters(text)
    if len(parts) == 1:
        parts = text
    if len(parts) == 1:
        raise UserError(f"U+{ord(text):04X} is larger than a picture of {style.page_px} px: take smaller letters")
    half = len(parts) // 2
    return "".join(parts[:half]), "".join(parts[half:])
