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
NUMBERS = {"A": "2", "B": "3", "C": "4", "D": "12"}
DIRECTIONS = {"A": "left", "B": "right", "C": "not moving", "D": "A and B"}
TEN = {letter: f"thing {letter}" for letter in "ABCDEFGHIJ"}

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
    # Reasoning, markup, other languages, denials, and lists of the options.
    ("<answer>B</answer>", "B"),
    ("<answer>(C)</answer>", "C"),
    ("<think>A is wrong, so B.</think>\n<answer>C</answer>", "C"),
    ("<think>It is A. No. The answer is A? no.</think>B", "B"),
    ("Answer:\nB", "B"),
    ("Answer:\n\n(B) It sleeps", "B"),
    ("### Answer\nC", "C"),
    ("**Answer:** C", "C"),
    ("Answer：C", "C"),
    ("Final Answer: \\boxed{\\text{C}}", "C"),
    ("\\(\\boxed{B}\\)", "B"),
    ("\\text{B}", "B"),
    ("B. ", "B"),
    ("B,", "B"),
    ("B;", "B"),
    ("B!", "B"),
    ("B?", "B"),
    ("'B'", "B"),
    ("‘B’", "B"),
    ("<B>", "B"),
    ("{B}", "B"),
    ("Ⓑ", "B"),
    ("(B", "B"),
    ("B))", "B"),
    (".B", "B"),
    ("A, because a dog runs", "A"),
    ("A because the dog runs", "A"),
    ("B, since it sleeps", "B"),
    ("B is correct", "B"),
    ("B is the correct answer.", "B"),
    ("A is correct.", "A"),
    ("A is the right answer", "A"),
    ("(A) is wrong, (B) is correct", "B"),
    ("Option A is correct.", "A"),
    ("Option (B) is the best.", "B"),
    ("The correct answer is option B: It sleeps.", "B"),
    ("The answer is B) It sleeps", "B"),
    ("The answer is not A but B.", "B"),
    ("The answer isn't A, it's B", "B"),
    ("The answer cannot be A; the answer is C.", "C"),
    ("Choose B", "B"),
    ("I choose B.", "B"),
    ("I'd say B", "B"),
    ("I think it's B.", "B"),
    ("I think B is right", "B"),
    ("I pick (c)", "C"),
    ("Probably B", "B"),
    ("Definitely C.", "C"),
    ("Based on the video, the answer is B.", "B"),
    ("Based on the video, B.", "B"),
    ("Based on the video: B", "B"),
    ("The animal sleeps, therefore B", "B"),
    ("A/B", None),
    ("A, B", None),
    ("A and B", None),
    ("A, B, C", None),
    ("AB", None),
    ("B or C", None),
    ("Either A or B", None),
    ("B, C", None),
    ("A; B", None),
    ("A & B", None),
    ("A. B", None),
    ("(A)(B)", None),
    ("Both A and B", None),
    ("A\nB", None),
    ("A. dog", "A"),
    ("A dog runs, and it sleeps", None),
    ("A man is walking.", None),
    ("Nothing", "D"),
    ("It is not sleeping", None),
    ("It does not: it sleeps not on a sofa", None),
    ("answer: b", "B"),
    ("the answer is (d)", "D"),
    ("option c", "C"),
    ("answer is c.", "C"),
    ("ANSWER: B", "B"),
    ("The Answer is a cat", None),
    ("answer: a dog", None),
    ("answer: a", "A"),
    ("정답: B", "B"),
    ("答え: B", "B"),
    ("选B", "B"),
    ("选择 B", "B"),
    ("选项B", "B"),
    ("我选C。", "C"),
    ("答案为 D。", "D"),
    ("正确答案是 B。", "B"),
    ("B。", "B"),
    ("B、它在睡觉", "B"),
    ("A：狗在跑", "A"),
    ("La réponse est B.", "B"),
    ("Die Antwort ist B.", "B"),
    ("Respuesta: B", "B"),
    ("Answer: A. A dog runs\nExplanation: The answer is not B.", "A"),
    ("A. A dog runs B. It sleeps C. It sleeps on a sofa D. Nothing", None),
    ("A. A dog runs\nB. It sleeps\nC. It sleeps on a sofa\nD. Nothing", None),
    ("A. A dog runs\nB. It sleeps\nC. It sleeps on a sofa\nD. Nothing\nAnswer: B", "B"),
    ("None of the above", None),
    ("N/A", None),
    ("N.A.", None),
    ("C-section", None),
    ("B-roll shows", None),
    ("A.", "A"),
    ("A. M. Smith", None),
    ("D'accord", None),
    ("D.C. is shown", None),
    ("E. Nothing of these", None),
    ("F", None),
    ("The animal A", None),
    ("vitamin C", None),
    ("plan B", None),
    ("The video shows person A.", None),
    ("This is a", None),
    ("Option B and option C", None),
    ("Neither A nor B", None),
    ("The answer is A or B", None),
    ("The answer is either A or B.", None),
    ("The answer could be A, but B is better", None),
    ("Answer: A, B", None),
    ("Answer: A and C", None),
    ("Answer: A/B", None),
    ("Answer: A -> B", None),
    ("Answer (C)", "C"),
    ("answer:**(C)**", "C"),
    ("Answer: [B]", "B"),
    ("The best answer is: **B. It sleeps**", "B"),
    ("**Option B: It sleeps**", "B"),
    ("Option B - It sleeps", "B"),
    ("The correct letter is B.", "B"),
    ("Letter: B", "B"),
    ("B:It sleeps", "B"),
    ("B.It sleeps", "B"),
    ("(B)It sleeps", "B"),
    ("B)It sleeps", "B"),
    ("B It sleeps", "B"),
    ("A A dog runs", "A"),
    ("A A cat", None),
    ("b. It sleeps", "B"),
    ("a dog", None),
    ("a. dog", "A"),
    ("a", "A"),
    ("Answer: A dog runs", "A"),
    ("Answer: A Dog", None),
    ("Option A: the dog stands. Option B: it lies. So the answer is B.", "B"),
    ("Let's see. A shows a dog. The correct answer: (C)", "C"),
    ("A is incorrect. B is incorrect. C is incorrect. D is correct.", "D"),
    ("A is wrong.", None),
    ("B is not correct, D is.", None),
    ("The dog is B", "B"),
    ("The grades are B, C", None),
    ("Description: A, B", None),
    ("The answer is **B** (It sleeps).", "B"),
    ("Answer: B (It sleeps)", "B"),
    ("answer B", "B"),
    ("Answer B.", "B"),
    ("Answer B and C", None),
    ("ANSWER IS (B) OR (C)", None),
    ("B. It sleeps\n\nA. is wrong since no dog runs", "B"),
    ("(C) It sleeps on a sofa (A) A dog runs", "C"),
    ("The answer is A dog runs", "A"),
    ("The answer is: C - It sleeps on a sofa", "C"),
    ("I", None),
    ("It's a B.", None),
    ("A dog. B. Smith", None),
    ("U.S.A.", None),
    ("Dr. B. Smith", None),
    ("A-B", None),
    ("Type A", None),
    ("the answer's B", "B"),
    ("Answer→B", None),
    ("B\n\nB", "B"),
    ("BBB", None),
    ("B B B", "B"),
    ("A A A", "A"),
    ("Assistant: B", "B"),
    ("Output: (b)", "B"),
    ("The answer is B; C is wrong", "B"),
    ("C is wrong; the answer is B", "B"),
    ("Correct: B", "B"),
    ("Sure! B.", "B"),
    ("Sure! The answer is B.", "B"),
    ("Sure, the answer's (B).", "B"),
    ('{"answer": "B"}', "B"),
    ('{"answer": "A"}', "A"),
    ('```json\n{"answer": "C"}\n```', "C"),
    ('Answer: "A"', "A"),
    ("['B']", "B"),
    ("Answer: ['B']", "B"),
    ("A) A dog runs, not B) It sleeps", "A"),
    ("B (not A)", "B"),
    ("B, not A", "B"),
    ("B rather than A", "B"),
    ("Not A. B.", "B"),
    ("not sure", None),
    ("I'm not sure, but B", "B"),
    ("There is no answer A", None),
    ("The answer is unclear: A or B", None),
    ("My answer is not B", None),
    ("The answer is definitely B.", "B"),
    ("The answer is probably (B)", "B"),
    ("The answer to the question is B.", "B"),
    ("The answer seems to be B", "B"),
    ("The correct answer: It sleeps on a sofa", "C"),
    ("The correct answer is\n\nB", "B"),
    ("Answer is\nC. It sleeps on a sofa", "C"),
    # A letter that is picked in so many words is no other option's, whatever else is said.
    ("I choose B, it sleeps on a sofa", "B"),
    ("I'd pick A, because it runs.", "A"),
    ("I would not choose A, I would choose C", "C"),
    ("It is A, not C.", "A"),
    ("Option A and option B are wrong, so C", "C"),
    ("A, B and C are incorrect. D", "D"),
    ("The answer is A and not B", "A"),
    ("A: B", None),
    ("B seems to be the correct answer", "B"),
    ("Thinking: A or B.\nFinal: B", "B"),
    ("option a", "A"),
    ("Answer - B", "B"),
    ("[Answer] B", "B"),
    # What is no part of a reply.
    ("B<|im_end|>", "B"),
    ("<s> B</s>", "B"),
    ("\u200bB\ufeff", "B"),
    ("- B", "B"),
    ("> B. It sleeps", "B"),
    ("The animal is asleep\n\nB.", "B"),
    # What is marked as the answer comes first.
    ("<reasoning>A seems right</reasoning><answer>B</answer>", "B"),
    ("We see A = 3 and B = 5, so \\boxed{C}", "C"),
    ("\\boxed{A} or \\boxed{B}", None),
    ("\\boxed{\\text{It sleeps on a sofa}}", "C"),
    # Chinese.
    ("B选项", "B"),
    ("B 选项正确", "B"),
    ("B项正确", "B"),
    ("我选择B选项", "B"),
    ("正确的是B", "B"),
    ("不选A,选B", "B"),
    ("答案不是A,而是B", "B"),
    ("A选项错误,B选项正确", "B"),
    ("答案不是B", None),
    ("B选项不正确", None),
    ("A项目", None),
]
# What a reply says of a letter, whichever it is: A is no word here.
OF_ANY_LETTER = [
    "The answer is {} because it runs",
    "The correct answer is {} as the dog moves.",
    "Answer is {} since the dog moves",
    "The answer is {} (the animal moves).",
    "Answer: {} (not E)",
    "{} - the dog moves",
    "{} – the dog moves",
    "{} — because the dog moves",
    "I choose {} since it fits",
    "I'll go with {}, since it fits",
    "I select option {}. The dog moves.",
    "The answer is {} which fits",
    "{} seems to be correct",
    "The answer is most likely {}, since it fits",
    "The answer is clearly {} because it fits",
    "Clearly {}",
    "The animal moves.\n{}",
]

OTHERS = [
    ("12", NUMBERS, "D"),
    ("There are 12 dogs, not 2", NUMBERS, "D"),
    ("3.5", NUMBERS, None),
    ("-2", NUMBERS, None),
    ("2.", NUMBERS, "A"),
    ("2 or 3", NUMBERS, None),
    ("A and B", DIRECTIONS, "D"),
    ("not left, but right", DIRECTIONS, "B"),
    ("It is not moving", DIRECTIONS, "C"),
    ("not right", DIRECTIONS, None),
    ("It doesn't move right", DIRECTIONS, None),
    ("He isn't running", {"A": "running", "B": "sitting"}, None),
    ("It is not visible.", {"A": "running", "B": "isn't visible"}, "B"),
    ("no, it does not", {"A": "yes", "B": "no"}, "B"),
    ("There is no dog, yes", {"A": "yes", "B": "no"}, None),
    ("I have no idea.", {"A": "yes", "B": "no"}, None),
    ("No idea", {"A": "yes", "B": "no"}, None),
    ("There is no way to tell.", {"A": "yes", "B": "no"}, None),
    ("The answer is no", {"A": "yes", "B": "no"}, "B"),
    ("No it does not", {"A": "yes", "B": "no"}, "B"),
    ("The right answer cannot be determined", DIRECTIONS, None),
    ("The right option is unclear", DIRECTIONS, None),
    ("The right answer is left", DIRECTIONS, "A"),
    ("It moves to the right", DIRECTIONS, "B"),
    ("I", TEN, "I"),
    ("I think so", TEN, None),
    ("I, the animal", TEN, None),
    ("Answer: J", TEN, "J"),
]


def test_the_table_is_long_enough_and_names_no_reply_twice() -> None:
    assert len({reply for reply, _ in REPLIES}) == len(REPLIES) >= 60


@pytest.mark.parametrize(("reply", "letter"), REPLIES, ids=lambda value: repr(value)[:40])
def test_a_reply_chooses_this(reply: str, letter: str | None) -> None:
    assert chosen_letter(reply, OPTIONS) == letter


@pytest.mark.parametrize(("reply", "options", "letter"), OTHERS, ids=lambda value: repr(value)[:40])
def test_with_other_options_a_reply_chooses_this(reply: str, options: dict[str, str], letter: str | None) -> None:
    assert chosen_letter(reply, options) == letter


@pytest.mark.parametrize("form", OF_ANY_LETTER)
def test_no_letter_is_read_less_often_than_another(form: str) -> None:
    assert [chosen_letter(form.format(letter), OPTIONS) for letter in OPTIONS] == list(OPTIONS)


@pytest.mark.parametrize(
    ("reply", "options", "letter"),
    [
        ("...so option A. But then it turns.\n</think>\n\nB", {"A": "red", "B": "blue"}, "B"),
        ("<think>A</think> no, B</thinking>\nC", {"A": "red", "B": "blue", "C": "green"}, "C"),
        ("D. Both A and B", {"A": "red", "B": "blue", "C": "green", "D": "Both A and B"}, "D"),
        ("Both A and B", {"A": "red", "B": "blue", "C": "green", "D": "Both A and B"}, "D"),
        ("A and B", {"A": "red", "B": "blue", "C": "green"}, None),
        ("(B) y", {"A": "x", "B": "y"}, "B"),
        ("Yes, a man is there, and no one else.", {"A": "yes", "B": "no"}, "A"),
        ("No. There is no dog, yes.", {"A": "yes", "B": "no"}, "B"),
        ("No idea.", {"A": "yes", "B": "no"}, None),
        ("No doubt about it: yes", {"A": "yes", "B": "no"}, None),
        (
            "No person is visible, so it cannot be determined.",
            {"A": "yes", "B": "no", "C": "cannot be determined"},
            None,
        ),
        ("No, that cannot be told.", {"A": "yes", "B": "no", "C": "cannot be told"}, None),
        ("<answer>B</answer></think>", {"A": "red", "B": "blue"}, "B"),
        ("B</think>", {"A": "red", "B": "blue"}, "B"),
        ("<think>B</think>", {"A": "red", "B": "blue"}, None),
        ("C.\n\nA. is wrong, as it moves.", {"A": "red", "B": "blue", "C": "green"}, "C"),
        ("A. is wrong, as it moves.", {"A": "red", "B": "blue", "C": "green"}, None),
    ],
)
def test_thoughts_letters_in_texts_and_a_yes_at_the_beginning(
    reply: str, options: dict[str, str], letter: str | None
) -> None:
    assert chosen_letter(reply, options) == letter


def test_of_several_lists_of_options_the_questions_counts() -> None:
    assert options_of("Which?\nA. one\nB. two\nC. three\nB\n\nWhich?\nA. red\nB. blue") == {"A": "red", "B": "blue"}
    assert options_of("Compare (A) and (B).\nA. red\nB. blue\nC. green")["C"] == "green"
    assert options_of("Compare (A) and (B).\nA. red\nB. blue") == {"A": "red", "B": "blue"}
    assert options_of("A. Which is it?\nA. red\nB. blue") == {"A": "red", "B": "blue"}
    assert options_of("Which?\nA. red\nB. blue\nA: it is B") == {"A": "red", "B": "blue"}


def test_options_are_read_from_the_prompt() -> None:
    assert options_of(PROMPT) == OPTIONS
    assert options_of("Which?\n(A) red\n(B) blue") == {"A": "red", "B": "blue"}
    assert options_of("Which? (A) red (B) blue") == {"A": "red", "B": "blue"}
    assert options_of("Which?\n- A. red\n- **B.** blue") == {"A": "red", "B": "blue"}
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
