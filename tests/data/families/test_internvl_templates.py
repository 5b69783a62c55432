"""The family's conversation templates: text, and what of it is learned."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from internvl_chat.constants import IGNORE_INDEX, SPECIAL_TOKENS
from internvl_chat.contracts import Turn, UserError
from internvl_chat.data.families.internvl import encode_conversation
from internvl_chat.data.families.internvl_templates import CONVERSATION_TEMPLATES
from internvl_chat.data.prompts.tokenizer import load_tokenizer
from internvl_chat.families import check_style, family_of_style
from tests.families import family_tokenizer

TURNS = (
    Turn("human", "<image>\nwhat is it?"),
    Turn("gpt", "a cat"),
    Turn("human", " which colour? "),
    Turn("gpt", "black, I think"),
)


def learned(labels: list[int], made: PreTrainedTokenizerFast) -> str:
    return made.decode([label for label in labels if label != IGNORE_INDEX])


@pytest.mark.parametrize(
    ("name", "with_bos", "turns", "expected"),
    [
        ("internvl2_5", False, TURNS, "a cat<|im_end|>black, I think<|im_end|>"),
        ("internvl2_5", True, TURNS, "a cat<|im_end|>black, I think<|im_end|>"),
        ("internlm2-chat", True, TURNS, "a cat<|im_end|>black, I think<|im_end|>"),
        ("Hermes-2", False, TURNS, "a cat<|im_end|>black, I think<|im_end|>"),
        ("phi3-chat", True, TURNS[:2], "a cat<|end|>"),
        ("phi3-chat", False, TURNS[:2], "a cat<|end|>"),
    ],
)
def test_learned_are_the_answers_and_their_end(
    name: str, with_bos: bool, turns: tuple[Turn, ...], expected: str
) -> None:
    made = family_tokenizer(with_bos)
    encoded = encode_conversation(turns, made, CONVERSATION_TEMPLATES[name], [3])
    assert learned(encoded.labels, made) == expected
    assert (encoded.input_ids[0] == made.convert_tokens_to_ids("<s>")) == with_bos
    assert encoded.input_ids.count(made.convert_tokens_to_ids("<IMG_CONTEXT>")) == 3
    assert all(label in (IGNORE_INDEX, token) for label, token in zip(encoded.labels, encoded.input_ids, strict=True))


def test_text_of_the_templates() -> None:
    made = family_tokenizer(False)
    turns = (Turn("system", "Be brief."), Turn("human", " Hi "), Turn("gpt", "Yes"), Turn("human", "Why?"))
    texts = {
        name: made.decode(encode_conversation(turns, made, template).input_ids)
        for name, template in CONVERSATION_TEMPLATES.items()
    }
    user, assistant = "<|im_start|>user\n", "<|im_start|>assistant\n"
    assert texts == {
        "internvl2_5": f"<|im_start|>system\nBe brief.<|im_end|>\n{user} Hi <|im_end|>\n{assistant}Yes<|im_end|>\n"
        f"{user}Why?<|im_end|>\n{assistant}",
        "internlm2-chat": f"<|im_start|>system\nBe brief.<|im_end|>{user}Hi<|im_end|>{assistant}Yes<|im_end|>"
        f"{user}Why?<|im_end|>{assistant}",
        "Hermes-2": f"<|im_start|>system\nBe brief.<|im_end|>{user} Hi <|im_end|>{assistant}Yes<|im_end|>"
        f"{user}Why?<|im_end|>{assistant}",
        "phi3-chat": "<|system|>\nBe brief.<|end|><|user|>\n Hi <|end|><|assistant|>\nYes<|end|>"
        "<|user|>\nWhy?<|end|><|assistant|>\n",
    }


def test_lengths_that_do_not_add_up_teach_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """InternLM2's mask counts a BOS before every piece; with a tokenizer that adds none it cannot be right."""
    made = family_tokenizer(False)
    with caplog.at_level(logging.WARNING):
        encoded = encode_conversation(TURNS, made, CONVERSATION_TEMPLATES["internlm2-chat"], [3])
    assert set(encoded.labels) == {IGNORE_INDEX}
    assert "is not learned from" in caplog.text


def test_the_style_is_checked_against_the_checkpoint() -> None:
    family = family_of_style("Hermes-2")
    assert family.conv_styles == tuple(CONVERSATION_TEMPLATES)
    check_style("Hermes-2", "Hermes-2", family)
    with pytest.raises(UserError, match="trained with 'internlm2-chat'; give --conv_style internlm2-chat"):
        check_style("internvl2_5", "internlm2-chat", family)
    with pytest.raises(UserError, match="unknown --conv_style 'vicuna': expected one of internvl2_5"):
        check_style("vicuna", None, family)


def test_a_tokenizer_from_any_of_its_files(tmp_path: Path) -> None:
    import sentencepiece

    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(["describe this video in one sentence", "a quick brown fox jumps over"] * 30))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=300,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    family = family_of_style("internvl2_5")
    made = load_tokenizer(tmp_path, family)
    reference = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    for text in ("a quick  video", " fox", "你好\n"):
        assert made(text)["input_ids"] == [reference.bos_id(), *reference.encode(text)]
    assert made.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(300, 309))
    with pytest.raises(UserError, match="holds no tokenizer"):
        load_tokenizer(tmp_path / "nothing")
