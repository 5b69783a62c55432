"""Which option a reply chooses: a table of replies as models write them."""

from __future__ import annotations

import pytest

from internvl_chat.scoring.multiple_choice import ChoiceItem, chosen_letter, options_of, score_choices
from internvl_chat.scoring.significance import share_interval

PROMPT = """What is the animal doing?
Options:
A. A dog runs
B. It sleeps
C. It sleeps on a sofa
D. Nothing
Answer with the option's letter."""
OPTIONS = {"A": "A dog runs", "B": "It sleeps", "C": "It sleeps on a sofa", "D": "Nothing"}

REPLIES = [
    ("A", "A"),
    ("b", "B"),
    (" C \n", "C"),
    ("D.", "D"),
    ("(A)", "A"),
    ("(b)", "B"),
    ("[C]", "C"),
    ("D)", "D"),
    ("A:", "A"),
    ("**B**", "B"),
    ("**B.** It sleeps", "B"),
    ("`C`", "C"),
    ('"D"', "D"),
    ("\\boxed{C}", "C"),
    ("$\\boxed{D}$", "D"),
    ("Ｂ", "B"),
    ("（C）", "C"),
    ("A. A dog runs", "A"),
    ("(B) It sleeps", "B"),
    ("C) It sleeps on a sofa", "C"),
    ("c. it sleeps on a sofa", "C"),
    ("B: It sleeps", "B"),
    ("B - It sleeps", "B"),
    ("B\nThe animal lies still.", "B"),
    ("D. It sleeps", "D"),
    ("Answer: A", "A"),
    ("answer: (B)", "B"),
    ("Answer is C.", "C"),
    ("The answer is D", "D"),
    ("The answer is: B.", "B"),
    ("The correct answer is (C).", "C"),
    ("The correct option is B, because it lies still.", "B"),
    ("The best choice would be A.", "A"),
    ("The answer should be D because nothing moves.", "D"),
    ("My answer is **C**.", "C"),
    ("Option B", "B"),
    ("Option B.", "B"),
    ("Answer = D", "D"),
    ("答案是C", "C"),
    ("答案:B", "B"),
    ("The dog lies down. So the answer is B", "B"),
    ("The answer is option C.", "C"),
    ("The final answer is [A].", "A"),
    ("I would choose (D).", "D"),
    ("I would choose D.", "D"),
    ("It must be B.", "B"),
    ("I would go with option C", "C"),
    ("Best described by (C), not (B).", "C"),
    ("It is not (A); it is (D).", "D"),
    ("A dog runs", "A"),
    ("a dog runs.", "A"),
    ("It sleeps", "B"),
    ("It sleeps on a sofa.", "C"),
    ("In the video, it sleeps on a sofa.", "C"),
    ("In the video it sleeps quietly.", "B"),
    ("nothing", "D"),
    # Nothing that can be told.
    ("", None),
    ("A dog", None),
    ("A dog sleeps.", None),
    ("A cat is on the sofa", None),
    ("The answer is a dog.", None),
    ("The answer is A dog.", None),
    ("I think the animal moves.", None),
    ("I cannot tell.", None),
    ("A or B", None),
    ("(A) or (B)", None),
    ("The answer is A. Or the answer is B.", None),
    ("E", None),
    ("(F)", None),
    ("Both: a dog runs and nothing", None),
    ("Description: running", None),
    ("Because", None),
    ("It is not A.", None),
    ("Option A is wrong.", None),
    ("An animal", None),
    ("123", None),
    ("C'est un chien", None),
    ("D-day", None),
]


def test_the_table_is_long_enough_and_names_no_reply_twice() -> None:
    assert len({reply for reply, _ in REPLIES}) == len(REPLIES) >= 60


@pytest.mark.parametrize(("reply", "letter"), REPLIES, ids=lambda value: repr(value)[:40])
def test_a_reply_chooses_this(reply: str, letter: str | None) -> None:
    assert chosen_letter(reply, OPTIONS) == letter


def test_options_are_read_from_the_prompt() -> None:
    assert options_of(PROMPT) == OPTIONS
    assert options_of("Which?\n(A) red\n(B) blue") == {"A": "red", "B": "blue"}
    assert options_of("Is it red? A. Smith says so") == {}
    assert options_of("Which?\nB. red\nC. blue") == {}


def test_without_options_only_letters_a_to_e_count() -> None:
    assert [chosen_letter(reply, {}) for reply in ("E", "F", "It sleeps", "Answer: C")] == ["E", None, None, "C"]


def test_unparsed_replies_stay_in_the_denominator() -> None:
    replies = [("A", "A", "x"), ("B", "A", "x"), ("A dog", "A", "x"), ("(B)", "B", "y"), ("", "B", "y")]
    items = [ChoiceItem(OPTIONS, truth, reply, category) for reply, truth, category in replies]
    overall, by_category = score_choices(items)
    assert (overall.questions, overall.correct, overall.unparsed, overall.accuracy) == (5, 2, 2, 0.4)
    assert [(name, s.correct, s.questions) for name, s in by_category.items()] == [("x", 1, 3), ("y", 1, 2)]
    assert overall.interval.low < 0.4 < overall.interval.high


@pytest.mark.parametrize(
    ("count", "total", "low", "high"), [(8, 10, 0.4902, 0.9433), (0, 20, 0.0, 0.1611), (20, 20, 0.8389, 1.0)]
)
def test_wilsons_interval(count: int, total: int, low: float, high: float) -> None:
    interval = share_interval(count, total)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
