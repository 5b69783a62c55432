"""Captions of scripts without spaces between words: the metrics' tokenizer would take a whole sentence for a word."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Han, kana, Thai, Lao, Burmese, Khmer, and what belongs to them. Marks above and below stay with their letter.
_LETTER = (
    "[\u0e01-\u0e2e\u0e30\u0e32\u0e33\u0e40-\u0e46\u0e81-\u0eae\u0eb0\u0eb2\u0eb3\u0ebd-\u0ec6"
    "\u1000-\u102a\u1780-\u17b3\u3005-\u3007\u3041-\u3096\u30a1-\u30fa\u30fc\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003134f]"
)
_UNSPACED = re.compile(_LETTER)
_MARKS = "[\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u17b4-\u17d3]*"
_WITH_MARKS = re.compile(_LETTER + _MARKS)
_PUNCTUATION = re.compile(
    "[\u3001-\u3003\u3008-\u3011\u3014-\u301f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65]"
)
# Of the letters; a few foreign names in English captions change nothing.
_TELLING_SHARE = 0.1


def are_unspaced(texts: Iterable[str]) -> bool:
    """Whether the texts, taken together, are of such a script."""
    joined = "".join(texts)
    num_letters = sum(c.isalpha() for c in joined)
    return len(_UNSPACED.findall(joined)) > _TELLING_SHARE * num_letters


def by_characters(text: str) -> str:
    """The text with every letter of such a script as a word of its own, and their punctuation left out."""
    return _PUNCTUATION.sub(" ", _WITH_MARKS.sub(r" \g<0> ", text))
