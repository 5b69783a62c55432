"""Reading boxes out of answers, well-formed and not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_chat.grounding import LabelledBox, detection_answer
from internvl_chat.scoring.box_answers import AnswerFault, parse_boxes

BOX, OTHER = (1.0, 2.0, 30.0, 40.0), (5.0, 6.0, 70.0, 80.0)
TEXT = "<ref>a dog</ref><box>[[1, 2, 30, 40]]</box>"


@pytest.mark.parametrize(
    ("answer", "boxes"),
    [
        (TEXT, [("a dog", BOX)]),
        (f"Sure:\n```\n{TEXT}\n<ref>cat</ref><box>[[5,6,70,80]]</box>\n```\n", [("a dog", BOX), ("cat", OTHER)]),
        ("<ref>screw</ref><box>[[1, 2, 30, 40], [5, 6, 70, 80]]</box>", [("screw", BOX), ("screw", OTHER)]),
        ("<ref> a\n dog </ref> <box> [ [1,2, 30 ,40] ] </box>", [("a dog", BOX)]),
        ("<ref>x</ref><box>[[1.0, 2.00, 30., +40]]</box>", [("x", BOX)]),
        ("<ref>x</ref><box>[[0.001, .002, 0.03, 0.04]]</box>", [("x", BOX)]),
        ("<ref>x</ref><box>[[0, 0, 1, 1]]</box>", [("x", (0.0, 0.0, 1000.0, 1000.0))]),
    ],
    ids=["one", "in prose", "several", "white space", "decimals", "shares", "whole picture"],
)
def test_well_formed_boxes_are_read(answer: str, boxes: list[tuple[str, tuple[float, ...]]]) -> None:
    parsed = parse_boxes(answer)
    assert parsed.faults == ()
    assert [item.label for item in parsed.boxes] == [label for label, _ in boxes]
    for item, (_, box) in zip(parsed.boxes, boxes, strict=True):
        assert item.box == pytest.approx(box)


MALFORMED = [
    ("", "empty_answer", []),
    (" \n", "empty_answer", []),
    ("I see no dog.", "no_box", []),
    ("a dog [[1, 2, 30, 40]]", "untagged_box", [("a dog", BOX)]),
    (
        "first:\ndog: [[1,2,30,40]]\ncat: [[5,6,70,80]]",
        "untagged_box untagged_box",
        [("dog", BOX), ("cat", OTHER)],
    ),
    ("<ref>dog</ref>[[1, 2, 30, 40]]", "untagged_box", [("dog", BOX)]),
    ("<box>[[1, 2, 30, 40]]</box>", "missing_label", [("", BOX)]),
    (TEXT + "<box>[[5, 6, 70, 80]]</box>", "missing_label", [("a dog", BOX), ("", OTHER)]),
    ("<ref></ref><box>[[1, 2, 30, 40]]</box>", "empty_label", [("", BOX)]),
    ("<ref>a dog</ref>", "missing_box", []),
    ("<ref>cat</ref> is not there, but " + TEXT, "missing_box", [("a dog", BOX)]),
    ("<ref>dog<box>[[1, 2, 30, 40]]</box>", "unclosed_ref", [("dog", BOX)]),
    ("dog</ref><box>[[1, 2, 30, 40]]</box>", "unopened_ref missing_label", [("", BOX)]),
    ("<ref>dog</ref><box>[[1, 2, 30, 40], [5, 6", "unclosed_box unbalanced_brackets", [("dog", BOX)]),
    ("<ref>dog</ref><box>[[1, 2, 30, 40]]", "unclosed_box", [("dog", BOX)]),
    (TEXT + "</box>", "unopened_box", [("a dog", BOX)]),
    ("<ref>dog</ref><box></box>", "empty_box", []),
    ("<ref>dog</ref><box>[[]]</box>", "empty_box", []),
    ("<ref>dog</ref><box>[[1, 2, 30, 40]</box>", "unbalanced_brackets", [("dog", BOX)]),
    ("<ref>dog</ref><box>[[1, 2, 30, 40</box>", "unbalanced_brackets", [("dog", BOX)]),
    ("<ref>dog</ref><box>[1, 2, 30, 40]</box>", "wrong_nesting", [("dog", BOX)]),
    ("<ref>dog</ref><box>1, 2, 30, 40</box>", "wrong_nesting", [("dog", BOX)]),
    ("<ref>dog</ref><box>[[[1, 2, 30, 40]]]</box>", "wrong_nesting", [("dog", BOX)]),
    ("<ref>d</ref><box>[[1,2,30,40] or [5,6,70,80]]</box>", "stray_text", [("d", BOX), ("d", OTHER)]),
    ("<ref>dog</ref><box>[[1, 2, 30]]</box>", "wrong_count", []),
    ("<ref>dog</ref><box>[[1, 2, 30, 40, 50]]</box>", "wrong_count", []),
    ("<ref>dog</ref><box>[[1, 2, thirty, 40]]</box>", "not_a_number", []),
    ("<ref>dog</ref><box>[[1, 2, nan, inf]]</box>", "not_a_number", []),
    ("<ref>dog</ref><box>[[-7, 2, 1300, 40]]</box>", "out_of_range", [("dog", (0.0, 2.0, 1000.0, 40.0))]),
    ("<ref>dog</ref><box>[[30, 2, 1, 40]]</box>", "no_area", []),
    ("<ref>dog</ref><box>[[30, 2, 30, 40]]</box>", "no_area", []),
]


@pytest.mark.parametrize(("answer", "faults", "boxes"), MALFORMED)
def test_malformed_answers_name_their_faults_and_keep_what_can_be_read(answer: str, faults: str, boxes: list) -> None:
    parsed = parse_boxes(answer)
    assert " ".join(fault.value for fault in parsed.faults) == faults
    assert [(item.label, item.box) for item in parsed.boxes] == boxes


def test_every_kind_of_fault_is_one_that_an_answer_can_have() -> None:
    seen = {kind for _, faults, _ in MALFORMED for kind in faults.split()}
    assert seen == {fault.value for fault in AnswerFault} - {"missing_prediction"}
    assert len(seen) >= 10


@given(
    st.lists(st.sampled_from(["<ref>", "</ref>", "<box>", "</box>", "[", "]", ",", "7", "930", "-", "x", " ", "\n"]))
)
def test_nothing_raises_and_every_box_lies_in_the_picture(pieces: list[str]) -> None:
    parsed = parse_boxes("".join(pieces))
    assert parsed.boxes or parsed.faults
    for item in parsed.boxes:
        x1, y1, x2, y2 = item.box
        assert 0 <= x1 < x2 <= 1000 and 0 <= y1 < y2 <= 1000


def test_a_field_of_json_is_no_label() -> None:
    parsed = parse_boxes('```json\n[{"bbox_2d": [1, 2, 30, 40], "label": "cat"}]\n```')
    assert [(item.label, item.box) for item in parsed.boxes] == [("", BOX)]


def test_what_is_written_is_read_back() -> None:
    items = [LabelledBox("b", (1, 2, 3, 4)), LabelledBox("a", (5, 6, 7, 8)), LabelledBox("b", (9, 10, 11, 12))]
    text = detection_answer(items)
    lines = "<ref>b</ref><box>[[1, 2, 3, 4], [9, 10, 11, 12]]</box>\n<ref>a</ref><box>[[5, 6, 7, 8]]</box>\n"
    assert text.endswith(f"\n\n```\n{lines}```\n")
    parsed = parse_boxes(text)
    assert parsed.faults == ()
    assert list(parsed.boxes) == [items[0], items[2], items[1]]
