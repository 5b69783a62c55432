"""The tokens that caption metrics count, without Java: Penn Treebank rules, lower case, punctuation dropped.

The reference is the tokenizer that pycocoevalcap starts in Java. How often the two differ, on real captions and on
captions with punctuation thrown in, is measured by `benchmarks/leaderboard_scores.py`.
"""

from __future__ import annotations

import re


def _any_of(words: str) -> str:
    return "|".join(re.escape(word) for word in words.split())


# A full stop belongs to these wherever they stand, and to the second group only where a number follows.
_ABBREVIATION = _any_of(
    "mr mrs ms messrs dr prof st mt ft jr sr gen col capt lt sgt maj cmdr rev hon gov sen rep pres ave blvd rd corp co "
    "inc ltd bros dept est etc vs v.s al jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri ph.d"
)
_NUMBERED = _any_of("no nos pp p vol art fig")
# The first halves of cannot, gonna, wanna, gotta, lemme, gimme and y'all.
_FIRST_HALF = r"can(?=not\b)|gon(?=na\b)|wan(?=na\b)|got(?=ta\b)|lem(?=me\b)|gim(?=me\b)|y'(?=all\b)"

# Each alternative is tried in this order at every place of the text.
_TOKEN = re.compile(
    rf"""
    https?://\S+ | www\.\S+ | \S+@[^\W_]+(?:\.[^\W_]+)+ | [@#][a-z]\w*  # addresses, names, hash tags
  | \b(?:{_FIRST_HALF}) | 't(?=is\b|was\b)
  | \b(?:{_ABBREVIATION})\.(?!\w) | \b(?:{_NUMBERED})\.(?=\s*\d)
  | \b[^\W\d_]\.(?:[^\W\d_]\.)*(?![^\W_])  # a.  p.m.  u.s.
  | [^\W_]+(?=n't\b) | n't\b | '(?:s|re|ve|ll|d|m)\b  # do n't, dog 's
  | \b[odl]'[^\W\d_]+ | \bma'am\b | '(?:n'?|em|til|cause)\b'? | '\d\ds?\b  # o'clock, 'em, '90s
  | \d+(?::\d+)+
  | [-+]?(?:\d+(?:,\d+)+(?:\.\d+)?|\d*\.\d+)(?![^\W_]) | (?<!\S)[-+]\d+(?![^\W_])
  | [^\W_]+(?:[-‑/._][^\W_]+)*  # t-shirt, and/or, file.txt
  | [?!]{{2,}} | \*+ | _+
  | [^\s\w\U0001F000-\U0001FAFF]  # any other mark, but no emoji
    """,
    re.VERBOSE,
)

_REWRITTEN = {
    "’": "'",
    "‘": "`",
    **dict.fromkeys("“”", '"'),
    **dict.fromkeys("–—", " - "),
    "…": " . ",
    "\u00ad": "",
    "\u200b": " ",
    "\u2010": "-",
    "£": "#",
    "€": "$",
}
_REWRITING = str.maketrans(_REWRITTEN)
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
# What the metrics do not count; brackets are counted, since pycocoevalcap drops only their upper-case names.
_DROPPED = set("\"'`.?!,:-;")


def tokenize(caption: str) -> str:
    """The tokens of a caption, separated by single spaces; empty if it holds nothing but punctuation."""
    text = caption.lower().translate(_REWRITING)
    tokens = (match.group() for match in _TOKEN.finditer(text))
    return " ".join(_BRACKETS.get(token, token) for token in tokens if token not in _DROPPED)
