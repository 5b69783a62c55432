"""Multiple choice: which option a reply chooses, and accuracy with every reply in the denominator."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from internvl_chat.scoring.significance import Interval, share_interval

DEFAULT_LETTERS = "ABCDE"

# An option as prompts list them, each on a line of its own: `A. text`, `(A) text`, `A) text`, `A: text`.
_OPTION = re.compile(r"^[ \t]*\(?([A-Z])[.):][ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
# A letter is one, and not the beginning of a sentence, where something that ends a choice comes after it.
_ENDS = r"(?=\s*(?:[.):,;\]!\n]|$)|\s+(?:because|since|as|and|which|-)\b|\s+-\s)"
_LEADING = re.compile(r"^\(?([A-Za-z])(?:[.):\]](?!\w|\s*(?:or|and)\b)|\s*\n|\s+-\s|$)")
_SAID = re.compile(
    r"(?i:answer|option|choice|答案)(?:\s*(?i:is|are|would be|should be|must be|option|choice|letter|:|=|是|为))*"
    rf"\s*[(\[]?([A-Z])(?![A-Za-z']){_ENDS}"
)
_CHOSEN = re.compile(
    r"(?i:\bis|\bbe|it's|\bchoose|\bpick|\bselect|\bsay|\bgo (?:with|for))(?:\s+(?i:option|choice|answer))?"
    r"\s+[(\[]?([A-Z])[)\]]?[.!]?$"
)
_BRACKETED = re.compile(r"\(([A-Z])\)")
# What follows negates: `not (A)`, `rather than (B)`.
_NEGATED = re.compile(r"(?i)\b(?:not|isn't|than|except)\s*[(\[]?[A-Z]\b[)\]]?")


@dataclass(frozen=True)
class ChoiceItem:
    """One question: its options by letter, the right letter, the reply, and what kind of question it is."""

    options: Mapping[str, str]
    truth: str
    reply: str
    category: str = ""


@dataclass(frozen=True)
class ChoiceScores:
    """Accuracy over all questions; `unparsed` of them had a reply that names no option, or none at all.

    `interval` is Wilson's at 95 %.
    """

    questions: int
    correct: int
    unparsed: int
    accuracy: float
    interval: Interval


def options_of(prompt: str) -> dict[str, str]:
    """The options that a prompt lists, letter -> text, from A on without a gap; empty where it lists none."""
    found: dict[str, str] = {}
    for letter, text in _OPTION.findall(unicodedata.normalize("NFKC", prompt)):
        if letter == chr(ord("A") + len(found)):
            found[letter] = text
    return found if len(found) > 1 else {}


def chosen_letter(reply: str, options: Mapping[str, str]) -> str | None:
    """The option that a reply chooses, or None where it names none, or several.

    Taken in this order: a letter at the beginning (`B.`, `(B)`, `B` alone); a letter that is said to be the answer; one
    letter in brackets; the text of one option; a letter that ends the reply after a verb. A letter that may be a word,
    as in `A dog`, is none.

    Args:
        options: letter -> text; without texts, or empty for A to E, only letters are looked for.
    """
    letters = "".join(options) or DEFAULT_LETTERS
    text = re.sub(r"[*_`\"“”]|\\boxed|[{}$]", "", unicodedata.normalize("NFKC", reply)).strip()
    bare = text.strip("()[]. \n")
    if len(bare) == 1 and bare.upper() in letters:
        return bare.upper()
    leading = _LEADING.match(text)
    if leading and leading[1].upper() in letters and not (leading[1] == "I" and text.startswith("I ")):
        return leading[1].upper()
    text = _NEGATED.sub(" ", text)
    for pattern in (_SAID, _BRACKETED):
        named = {letter for letter in pattern.findall(text) if letter in letters}
        if named:
            return named.pop() if len(named) == 1 else None
    by_text = _by_text(text, options)
    if by_text:
        return by_text
    ending = _CHOSEN.search(text)
    return ending[1] if ending and ending[1] in letters else None


def _by_text(reply: str, options: Mapping[str, str]) -> str | None:
    """The one option whose text the reply is, or holds as whole words; a text inside a longer one's does not count."""
    said = _plain(reply)
    plain = {letter: _plain(text) for letter, text in options.items() if _plain(text)}
    same = [letter for letter, text in plain.items() if text == said]
    if same:
        return same[0] if len(same) == 1 else None
    held = {letter: text for letter, text in plain.items() if f" {text} " in f" {said} "}
    whole = [
        letter
        for letter, text in held.items()
        if not any(text != other and f" {text} " in f" {other} " for other in held.values())
    ]
    return whole[0] if len(whole) == 1 else None


def _plain(text: str) -> str:
    """Words alone, in lower case."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def score_choices(items: Sequence[ChoiceItem]) -> tuple[ChoiceScores, dict[str, ChoiceScores]]:
    """The scores of all items, and those of each category."""
    chosen = [chosen_letter(item.reply, item.options) for item in items]
    by_category: dict[str, list[int]] = {}
    for number, item in enumerate(items):
        by_category.setdefault(item.category, []).append(number)

    def scores_of(numbers: Sequence[int]) -> ChoiceScores:
        correct = sum(chosen[number] == items[number].truth for number in numbers)
        unparsed = sum(chosen[number] is None for number in numbers)
        interval = share_interval(correct, len(numbers))
        return ChoiceScores(len(numbers), correct, unparsed, correct / len(numbers), interval)

    return scores_of(range(len(items))), {name: scores_of(numbers) for name, numbers in sorted(by_category.items())}
