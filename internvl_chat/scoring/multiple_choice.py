"""Multiple choice: which option a reply chooses, and accuracy with every reply in the denominator."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from internvl_chat.scoring.significance import Interval, share_interval

DEFAULT_LETTERS = "ABCDE"

# An option as prompts list them, each on a line of its own: `A. text`, `(A) text`, `A) text`, `A: text`; or `(A) text
# (B) text` one after the other.
_OPTION = re.compile(r"^[ \t]*(?:[-*•][ \t]+)?\**\(?([A-Z])(?:[.):][ \t]*|、)\**[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_OPTION_IN_LINE = re.compile(r"\(([A-Z])\)[ \t]*(\S.*?)(?=[ \t]*\([A-Z]\)|[ \t]*$)", re.MULTILINE)

# What a model thinks before it replies; it may have been cut off there.
_THOUGHT = re.compile(r"(?is)<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)")
# Where the chat's template has opened it, only its end is written.
_END_OF_THOUGHT = re.compile(r"(?i)</think(?:ing)?>")
# What a reply marks as its answer; and what stands around a text and is no part of it: tokens that end it, characters
# that are not seen, the mark of a list.
_MARKED = re.compile(r"(?is)<answer>(.*?)</answer>|\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
_UNSEEN = re.compile(r"<\|[^|<>]*\|>|</?s>|</?[A-Za-z]{2,}>|[\x00\u200b-\u200f\u2060\ufeff]")
_LIST_MARK = re.compile(r"^\s*(?:[-*•>#]+\s+)+")
_MARKUP = re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf)\b|\\[()\[\]]|[*_`\"“”#{}$]")
_AROUND_A_LETTER = "()[]<>'‘’.,;:!?。、 \n"

# `A` and `I` before a word in small letters are words, but for `A because`; any other capital alone is a letter.
_AFTER_A = r"(?:because|since|as|and|or|which|but)\b"
_LETTER = rf"(?:[B-HJ-Z](?![\w'])|A(?![\w'])(?!\s+(?!{_AFTER_A})[a-z])|I(?![\w'])(?!\s+[a-z]))"
_ALONE = re.compile(rf"(?<![\w'])({_LETTER})")
_RUN = rf"[(\[]?{_LETTER}[)\]]?(?:\s*(?:,|/|&|\b(?i:and|or)\b)+\s*[(\[]?{_LETTER}[)\]]?)*"
_LETTERS_ONLY = re.compile(r"(?i)(?:[\s,;./&()\[\]]|\b(?:and|or|both|either)\b|(?<!\w)[A-Z](?!\w))+")

# A letter is one, and not the beginning of a sentence, where something that ends a choice comes after it.
_ENDS = rf"(?=\s*(?:[.):,;\]!\n。、]|$)|\s*\((?!\s*[A-Z]\))|\s+(?i:{_AFTER_A})|\s+-\s)"
_IS = (
    r"(?:\s*(?i:is|['’]s|are|would be|should be|must be|seems to be|appears to be|most|likely|probably|definitely"
    r"|clearly|certainly|but|option|choice|letter|:|=|\]|-(?=\s)|是|为))*"
)
_SMALL = r"[(\[][a-z][)\]]|(?<=[:=])\s*[a-z](?=[.)!]?\s*$)|[b-hj-z](?=[.)!]?\s*$)|[ai](?=[.)])"
_ANSWER = re.compile(rf"(?:(?i:answer|final(?=\s*:))|答案|而是|应该是|正确的是){_IS}\s*((?:{_RUN}){_ENDS}|{_SMALL})")
_SAID_OPTION = re.compile(
    rf"(?:(?i:option|choice)|选项|选择|选){_IS}\s*((?:{_RUN}){_ENDS}|{_SMALL}|(?<=[Oo]ption )[ai](?=\s*$))"
)
_PICKED = re.compile(
    rf"\b(?i:choose|pick|select|go (?:with|for))(?:\s+(?i:option|choice|answer))?\s+((?:{_RUN}){_ENDS})"
)
_RIGHT = re.compile(
    r"(?<![\w'])([A-Z])(?=\s*是?(?:正确|对))|"
    r"(?<![\w'])([A-Z])[)\]]?\s+(?:is|seems(?: to be)?|must be|would be)\s+(?:clearly\s+|probably\s+)?"
    r"(?:the\s+)?(?:most\s+)?(?:only\s+)?(?:correct|right|best|true|likely|accurate|answer)\b"
)
_BRACKETED = re.compile(r"(?<!\w)(\([A-Za-z]\))")
_ENDING = re.compile(
    r"(?:\n|(?:[:,.!?]|(?i:\bis|\bbut|\bbe|it's|\best|\bist|\bchoose|\bpick|\bselect|\bsay|\bgo (?:with|for)"
    r"|\bso|\btherefore|\bthus|\bhence|\bprobably|\bdefinitely|\bclearly|\bcertainly|\blikely)(?:\s+(?i:option|choice|answer))?\s))\s*([(\[]?[A-Z][)\]]?)[.!。]?$"
)
_LEADING = re.compile(
    r"[(\[<]?([A-Za-z])(?:[)\]>]*[.):\]>](?![A-Za-z]|\s*(?:or|and|is|was|are|can|cannot|does)\b|\s*\(?[A-Z](?:[.)]|$))"
    r"|(?<=[B-HJ-Z])[,;、]|\s*\n|\s+-\s|\s+(?:because|since)\b|$)"
)
# What is said not to be chosen: `not (A)`, `rather than (B)`, `neither A nor B`; `A is wrong`.
_NEGATED = re.compile(
    r"(?:\b(?i:not|no|cannot|never|(?:rather )?than|except|neither|nor)|n't)"
    r"(?:\s+(?i:be|choose|pick|select|option|answer))*\s*(?:[(\[][A-Za-z][)\]]|[A-Z](?![\w']))"
    r"|(?<![\w'])[(\[]?[A-Z][)\].]?\s+(?:is|was|are|cannot|can't|does)(?:n't|\s+not|\s+(?:wrong|incorrect|false|out)\b)"
    r"|[(\[]?(?<![\w'])[A-Z][)\]]?(?:\s*(?:,|\band\b|\bor\b)+\s*(?:(?i:option)\s+)?[(\[]?[A-Z][)\]]?)+\s+are\s+"
    r"(?:not\b|(?:both\s+|all\s+)?(?:wrong|incorrect|false|out)\b)"
    r"|(?:不是|不选|并非|而非|排除)\s*[A-Z](?![A-Za-z])|(?<![A-Za-z])[A-Z]\s*是?(?:错误?|不正确|不对)的?"
)
_NEGATION_BEFORE = re.compile(r"\b(?:not|no|never|neither|nor|cannot|without|than|instead of|except)\b")
# What is no direction, and no answer either.
_RIGHT_ANSWER = re.compile(r"(?i)\bright(?=\s+(?:answer|option|choice|letter|one)\b)")
_NO_OF_AN_ANSWER = re.compile(r"^ no (?!(?:idea|clue|answer|information|way|option)\b)| no $")
_YES_OR_NO = re.compile(r"(?i)\W*(yes|no)\b\s*(?:[,.;:!\n。，]|-\s|$)")
_CLAUSE = re.compile(r"[.,;:!?\n。，](?!\d)|\bbut\b")


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
    """The options that a prompt lists, letter -> text, from A on without a gap; empty where it lists none.

    Of several lists, such as an example's and the question's, the last counts.
    """
    text = unicodedata.normalize("NFKC", prompt)
    by_line, in_line = (_last_list(form.findall(text)) for form in (_OPTION, _OPTION_IN_LINE))
    return in_line if len(in_line) > len(by_line) else by_line


def without_thought(reply: str) -> str:
    """What a model replies behind what it thinks."""
    parts = [part for part in _END_OF_THOUGHT.split(_THOUGHT.sub("", reply)) if part.strip()]
    return parts[-1] if parts else ""


def _last_list(found: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The last of what begins at A and goes on to B at least."""
    listed: dict[str, str] = {}
    options: dict[str, str] = {}
    for letter, option in found:
        if letter == "A":
            options = {}
        if letter == chr(ord("A") + len(options)):
            options[letter] = option
        if len(options) > 1:
            listed = options
    return listed


def chosen_letter(reply: str, options: Mapping[str, str]) -> str | None:
    """The option that a reply chooses, or None where it names none, or several.

    What stands in `<think>` does not count, and what stands in `<answer>` or `\\boxed{}` comes first. Taken in this
    order: a letter alone, or the text of one option alone; a letter that is said to be the answer; one that is said to
    be right, or picked; a letter at the beginning (`B.`, `(B)`), unless the reply begins by listing the options;
    `option B`; one letter in brackets; the text of one option, unless it is denied; a letter that ends the reply after
    a verb or a colon. A letter that may be a word, as in `A dog`, is none, and a letter that no option has is never
    another option.

    Args:
        options: letter -> text; without texts, or empty for A to E, only letters are looked for.
    """
    letters = "".join(options) or DEFAULT_LETTERS
    text = without_thought(unicodedata.normalize("NFKC", reply))
    marked = {chosen_letter(one or other, options) for one, other in _MARKED.findall(text)} - {None}
    if marked:
        return marked.pop() if len(marked) == 1 else None
    text = _LIST_MARK.sub("", _MARKUP.sub("", _UNSEEN.sub(" ", re.sub("[–—]", "-", text)))).strip()
    text = re.sub(r"(?<![A-Za-z])([A-Z])\s*(?:选项|项(?!目))", r"\1 ", text)
    text = re.sub(r"['‘’]([A-Za-z])['‘’]", r"\1", text)
    affirmed = _NEGATED.sub(" ", text)
    bare = affirmed.strip(_AROUND_A_LETTER)
    if len(bare) == 1 and bare.upper() in letters:
        return bare.upper()
    same = [letter for letter, option in options.items() if _plain(option) and _plain(option) == _plain(text)]
    # A letter and its text, which may speak of letters: `D. Both A and B`.
    same = same or [letter for letter in options if _plain(f"{letter} {options[letter]}") == _plain(text) != letter]
    if same:
        return same[0] if len(same) == 1 else None
    if _LETTERS_ONLY.fullmatch(text):
        return _one(_named(re.compile(".+", re.DOTALL), text), letters)
    leading = _leading(affirmed.lstrip(), letters)
    for pattern in (_ANSWER, _RIGHT, _PICKED):
        named = _named(pattern, affirmed)
        if named:
            return _one(named | ({leading} if leading else set()), letters)
    if leading:
        return _one({leading}, letters)
    for pattern in (_SAID_OPTION, _BRACKETED):
        named = _named(pattern, affirmed)
        if named:
            return _one(named, letters)
    by_text = _yes_or_no(text, options) or _by_text(text, options)
    if by_text:
        return by_text
    ending = _named(_ENDING, affirmed.rstrip(" ,.;:()"))
    return _one(ending | set(_ALONE.findall(affirmed)), letters) if ending else None


def _leading(text: str, letters: str) -> str | None:
    """The letter that a reply begins with, or None; also where it begins with a list of the options."""
    found = _LEADING.match(text)
    if not found or (found[1] == "I" and text.startswith("I ")):
        return None
    first = found[1].upper()
    lists = first == letters[0] and re.search(rf"[\s(]{letters[1:2] or '$'}[.):]", text)
    return None if lists else first


def _named(pattern: re.Pattern[str], text: str) -> set[str]:
    """The letters of what a pattern finds, as capitals; of a run (`A, B and C`) each."""
    found = [
        match[0] if not match.re.groups else next(filter(None, match.groups())) for match in pattern.finditer(text)
    ]
    return {letter.upper() for run in found for letter in re.findall(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])", run)}


def _one(named: set[str], letters: str) -> str | None:
    """The only letter of a set, where an option has it."""
    return next(iter(named)) if len(named) == 1 and named <= set(letters) else None


def _by_text(reply: str, options: Mapping[str, str]) -> str | None:
    """The one option whose text a reply holds as whole words, undenied; a text inside a longer one's does not count."""
    reply = _RIGHT_ANSWER.sub("correct", reply)
    clauses = [f" {_plain(clause)} " for clause in _CLAUSE.split(reply)]
    whole_reply = f" {_plain(reply)} "
    plain = {letter: f" {_plain(text)} " for letter, text in options.items() if _plain(text)}
    held = {letter: text for letter, text in plain.items() if text in whole_reply}
    affirmed = [
        letter
        for letter, text in held.items()
        if not any(text != other and text in other for other in held.values())
        and not any(text in clause and _denied(clause, text) for clause in clauses)
    ]
    if len(affirmed) != 1:
        return None
    # `There is no dog` says neither yes nor no to a question that may be about something else.
    says = held[affirmed[0]] != " no " or any(map(_NO_OF_AN_ANSWER.search, clauses))
    return affirmed[0] if says else None


def _yes_or_no(reply: str, options: Mapping[str, str]) -> str | None:
    """Of a question between yes and no, the one that a reply says first, as a sentence or a clause of its own."""
    by_text = {_plain(text): letter for letter, text in options.items()}
    found = _YES_OR_NO.match(reply)
    if not found or not {"yes", "no"} <= by_text.keys():
        return None
    # What it goes on to say may be a third option.
    others = [text for text in by_text if text not in ("yes", "no", "") and f" {text} " in f" {_plain(reply)} "]
    return None if others else by_text[found[1].casefold()]


def _denied(clause: str, text: str) -> bool:
    """Whether a clause that holds an option's text says that it is not so."""
    before, _, after = clause.partition(text)
    return bool(_NEGATION_BEFORE.search(before)) or after.startswith("not ")


def _plain(text: str) -> str:
    """Words and numbers alone, in lower case; `3.5` and `-2` are one word each, `isn't` is two."""
    spelled = re.sub(r"n['’]t\b", " not", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(re.findall(r"(?<!\w)-?\d+(?:[.,]\d+)*(?!\w)|\w+", spelled))


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
