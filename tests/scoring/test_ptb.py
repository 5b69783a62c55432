"""Tokens without Java, against what pycocoevalcap's Java tokenizer says of the same text."""

from __future__ import annotations

import pytest

from internvl_chat.scoring.captions.caption_scores import caption_tokens
from internvl_chat.scoring.captions.ptb import tokenize

# Recorded from Stanford's PTBTokenizer 3.4.1 as pycocoevalcap runs it.
RECORDED = {
    "A Man's dog, running fast.": "a man 's dog running fast",
    "The dog can't stop; it won't, doesn't and isn't.": "the dog ca n't stop it wo n't does n't and is n't",
    "they're we've I'll he'd I'm you're": "they 're we 've i 'll he 'd i 'm you 're",
    "the dogs' owners are here, at the water’s edge": "the dogs owners are here at the water 's edge",
    "'quoted' and \"double quoted\" and “curly” and ‘single’": "quoted and double quoted and curly and single",
    "a t-shirt and/or a multi-colored yo-yo": "a t-shirt and/or a multi-colored yo-yo",
    "dash -- dash --- and - single—em and en–dash": "dash dash and single em and en dash",
    "wait... what.. is… it": "wait what is it",
    "hello!! really?! no? yes!": "hello !! really ?! no yes",
    "(in brackets) [square] {curly}": "-lrb- in brackets -rrb- -lsb- square -rsb- -lcb- curly -rcb-",
    "Mr. Smith and Dr. Jones vs. St. John etc. at 5 p.m.": "mr. smith and dr. jones vs. st. john etc. at 5 p.m.",
    "no. 5 on the shirt, but no. Not 6.": "no. 5 on the shirt but no not 6",
    "the U.S. team, e.g. a dog": "the u.s. team e.g. a dog",
    "1. a red ball 2. two": "1 a red ball 2 two",
    "3.5 and 1,000 and 10-12 and 1/2 and 10:30": "3.5 and 1,000 and 10-12 and 1/2 and 10:30",
    "-3 +5 of 3D 4x4 on the 1st in the 1920s": "-3 +5 of 3d 4x4 on the 1st in the 1920s",
    "a 50% discount for $20 & £5": "a 50 % discount for $ 20 & # 5",
    "gonna wanna gotta cannot gimme lemme": "gon na wan na got ta can not gim me lem me",
    "o'clock ma'am o'neill y'all 'tis 'em": "o'clock ma'am o'neill y' all 't is 'em",
    "dog,cat;bird:fish a*b ** x=5": "dog cat bird fish a * b ** x = 5",
    "café naïve 狗 über-cool мир's": "café naïve 狗 über-cool мир 's",
    "see www.foo.com or a@b.org @home #dog file.txt": "see www.foo.com or a@b.org @home #dog file.txt",
    "under_score word_ 20°C": "under_score word _ 20 ° c",
    "a smile 😀 here": "a smile here",
    "two  spaces\tand a tab": "two spaces and a tab",
    "...": "",
}


@pytest.mark.parametrize("text", RECORDED)
def test_tokens_are_those_of_the_java_tokenizer(text: str) -> None:
    assert tokenize(text) == RECORDED[text]


def test_what_was_recorded_is_what_java_says(captions: dict[str, list[str]]) -> None:
    texts = [*RECORDED, *(text for group in captions.values() for text in group)]
    said = caption_tokens([texts])[0]
    assert said[: len(RECORDED)] == list(RECORDED.values())
    assert said == caption_tokens([texts], java=False)[0]


def test_line_breaks_and_field_marks_inside_a_caption_shift_nothing() -> None:
    groups = [["a dog\r\nruns ||| fast"], ["a\x85cat\u2028sleeps", "one\nmore"], ["the end"]]
    expected = {0: ["a dog runs fast"], 1: ["a cat sleeps", "one more"], 2: ["the end"]}
    assert caption_tokens(groups) == expected == caption_tokens(groups, java=False)
