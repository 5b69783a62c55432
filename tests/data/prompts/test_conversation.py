"""The prompt: IntentVCNet's text to the byte, and InternVL2.5's label mask."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from internvl_chat.choices import PROMPT_FORMS
from internvl_chat.constants import IGNORE_INDEX
from internvl_chat.contracts import Turn
from internvl_chat.data.controls.base import Scene
from internvl_chat.data.controls.coordinates import Coordinates
from internvl_chat.data.families.internvl import encode_conversation
from internvl_chat.data.families.internvl_templates import CONVERSATION_TEMPLATES
from internvl_chat.data.prompts.conversation import (
    expand_video,
)
from internvl_chat.data.prompts.wordings import question_turn, recognised, reworded, wording_named
from tests.helpers import shared

TEMPLATE = CONVERSATION_TEMPLATES["internvl2_5"]
BOXES = np.array([[385, 633, 533, 725], [619, 531, 706, 592]])
ABSENT = np.array([[385, 633, 533, 725], [0, 0, 0, 0]])


def user_turn(form: str) -> str:
    question = question_turn("<video>\n" + wording_named(form).asks("airplane"))
    scene = Scene((("airplane", BOXES),), "Frame-1")
    return expand_video(
        Coordinates().words(question, scene) if "coordinates" in question.controls else question.text, len(BOXES)
    )


def test_user_turn_of_the_specification_to_the_byte() -> None:
    assert user_turn("coordinates") == (
        "Frame-1: <image>\nFrame-2: <image>\nDescribe this video in one sentence, and focus on airplane located in the "
        "coordinate list. The coordinates in each frame are:\n1. <ref>airplane</ref><box>[[385, 633, 533, 725]]</box>\n"
        "2. <ref>airplane</ref><box>[[619, 531, 706, 592]]</box>\n."
    )


def test_user_turn_of_red_box_with_coordinates() -> None:
    assert user_turn("red_box_coordinates").startswith(
        "Frame-1: <image>\nFrame-2: <image>\nDescribe this video in one sentence, and focus on the airplane in the "
        "red coordinate box, whose coordinates at each frame are:\n"
        "1. <ref>airplane</ref><box>[[385, 633, 533, 725]]</box>\n"
    )


@pytest.mark.parametrize(
    ("form", "question"),
    [
        (
            "red_box",
            "Describe this video in one sentence, and focus on the airplane in the red coordinate box.",
        ),
        ("text_only", "Give this video a description in one sentence."),
    ],
)
def test_user_turn_without_coordinates(form: str, question: str) -> None:
    assert user_turn(form) == f"Frame-1: <image>\nFrame-2: <image>\n{question}"


def test_an_absent_box_is_said_to_be_absent() -> None:
    lines = Coordinates().listed([("dog", ABSENT)]).splitlines()
    assert lines == ["1. <ref>dog</ref><box>[[385, 633, 533, 725]]</box>", "2. <ref>dog</ref>absent"]


def test_an_absent_box_can_be_written_as_zeros() -> None:
    assert (
        Coordinates(absent_boxes="zeros")
        .listed([("dog", ABSENT)])
        .endswith("\n2. <ref>dog</ref><box>[[0, 0, 0, 0]]</box>\n")
    )


@pytest.mark.parametrize("form", PROMPT_FORMS)
@pytest.mark.parametrize("name", ["rubik's cube", "licenseplate", "located in the coordinate list"])
def test_a_form_is_read_back_from_its_question(form: str, name: str) -> None:
    assert recognised("<video>\n" + wording_named(form).asks(name) + "\n") == PROMPT_FORMS[form]


def test_a_question_of_the_users_own_is_left_as_it_is() -> None:
    question = question_turn("<video>\nWhat is the coordinate list of the dog?")
    assert question.controls == frozenset()
    assert reworded(question, "dog", frozenset({"coordinates"})) == question


def test_a_question_is_reworded_for_the_controls_that_a_wording_speaks_of() -> None:
    question = question_turn("<video>\n" + wording_named("text_only").asks(""))
    other = reworded(question, "dog", frozenset({"drawn_box", "crops"}))
    assert other == question_turn("<video>\n" + wording_named("red_box").asks("dog"))
    assert reworded(other, "cat", frozenset({"drawn_box"})) is other


@pytest.mark.parametrize(
    "text", ["<video> what is it?", "what is it?", "<video>\nand\n<video>\nwhat?", "<video>\n<video>"]
)
def test_a_question_must_hold_one_video_line(text: str) -> None:
    with pytest.raises(ValueError, match="<video>"):
        expand_video(text, 3)


def test_each_image_gets_its_own_number_of_context_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    context = "<IMG_CONTEXT>"
    turns = [Turn("human", "a <image> b <image>")]
    text = tokenizer.decode(encode_conversation(turns, tokenizer, TEMPLATE, [2, 1]).input_ids)
    assert f"a <img>{context * 2}</img> b <img>{context}</img><|im_end|>" in text


@pytest.mark.parametrize("image_tokens", [[], [4], [4, 4, 4]])
def test_placeholders_and_images_must_be_as_many(image_tokens: list[int], tokenizer: PreTrainedTokenizerFast) -> None:
    turns = [Turn("human", "<image> and <image>?"), Turn("gpt", "yes")]
    with pytest.raises(ValueError, match="placeholders"):
        encode_conversation(turns, tokenizer, TEMPLATE, image_tokens)


@pytest.mark.parametrize(
    "speakers", [["gpt"], ["human", "human"], ["human", "gpt", "gpt"], ["human", "system"], ["user", "assistant"], []]
)
def test_turns_out_of_order_are_refused(speakers: list[str], tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="turn"):
        encode_conversation([Turn(speaker, "text") for speaker in speakers], tokenizer, TEMPLATE)


def parity_records() -> tuple[Any, list[dict[str, Any]]]:
    folder = shared("parity/text_internvl2_5")
    records = json.loads((folder / "text_case.json").read_text(encoding="utf-8"))["records"]
    assert len(records) == 3
    return AutoTokenizer.from_pretrained(folder / "tokenizer"), records


def test_ids_and_labels_are_those_of_the_original_training() -> None:
    tokenizer, records = parity_records()
    for record in records:
        turns = [Turn(turn["from"], turn["value"]) for turn in record["conversations"]]
        encoded = encode_conversation(turns, tokenizer, TEMPLATE, record["num_image_tokens"])
        assert encoded.input_ids == record["input_ids"], record["name"]
        assert encoded.labels == record["labels"], record["name"]


DIALOGUE = (
    Turn("human", "<image>\nwhat is it?"),
    Turn("gpt", "a cat; what else?"),
    Turn("human", "where does it go?"),
    Turn("gpt", "to the left"),
)


def test_learned_are_the_answers_and_their_end_and_nothing_else(tokenizer: PreTrainedTokenizerFast) -> None:
    """With a token a byte, the mask can be counted out on the text itself."""
    encoded = encode_conversation(DIALOGUE, tokenizer, TEMPLATE, [3])
    start, end = (tokenizer.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|im_end|>"))
    expected: list[int] = []
    speaker_prefix: list[int] = []
    inside_answer = False
    newline = tokenizer("\n")["input_ids"][0]
    for token in encoded.input_ids:
        if token == start:
            speaker_prefix, inside_answer = [], False
            expected.append(IGNORE_INDEX)
        elif inside_answer:
            expected.append(token)
            inside_answer = token != end
        else:
            expected.append(IGNORE_INDEX)
            speaker_prefix.append(token)
            inside_answer = token == newline and tokenizer.decode(speaker_prefix) == "assistant\n"
    assert encoded.labels == expected
    learned = [token for token in encoded.labels if token != IGNORE_INDEX]
    assert tokenizer.decode(learned) == "a cat; what else?<|im_end|>to the left<|im_end|>"


def test_whole_text_is_that_of_the_template(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode_conversation(DIALOGUE[:2], tokenizer, TEMPLATE, [2])
    assert tokenizer.decode(encoded.input_ids) == (
        "<|im_start|>system\n你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的"
        "多模态大语言模型。<|im_end|>\n<|im_start|>user\n<img><IMG_CONTEXT><IMG_CONTEXT></img>\nwhat is it?<|im_end|>\n"
        "<|im_start|>assistant\na cat; what else?<|im_end|>\n"
    )


def test_a_prompt_is_what_training_showed_before_the_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    trained = encode_conversation(DIALOGUE, tokenizer, TEMPLATE, [3])
    prompt = encode_conversation(DIALOGUE[:3], tokenizer, TEMPLATE, [3])
    num_answer = len(b"to the left") + 2
    assert prompt.input_ids == trained.input_ids[:-num_answer]
    assert set(prompt.labels[-len("<|im_start|>user\n") :]) == {IGNORE_INDEX}


def test_a_system_turn_replaces_the_default_message(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode_conversation([Turn("system", "Be brief."), Turn("human", "why?")], tokenizer, TEMPLATE)
    assert tokenizer.decode(encoded.input_ids).startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user")
