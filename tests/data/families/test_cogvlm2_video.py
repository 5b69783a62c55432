"""CogVLM2-Video's prompts: the text of the original, the frames' places, their positions, and what is learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from internvl_chat.constants import IGNORE_INDEX
from internvl_chat.contracts import Turn
from internvl_chat.data.families import cogvlm2_video
from internvl_chat.data.prompts.encoding import EncodedConversation
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.data.prompts.sample_pictures import SamplePictures
from internvl_chat.model.families.cogvlm2_video.model import position_ids_of
from tests.cogvlm2 import llama_byte_tokenizer

TOKENIZER = llama_byte_tokenizer()
BEGIN, END = TOKENIZER.bos_token_id, TOKENIZER.eos_token_id
FRAME = [TOKENIZER.convert_tokens_to_ids(cogvlm2_video.IMAGE_TOKEN)] * 6


def encode(style: str, num_frames: int, *texts: str) -> EncodedConversation:
    config = PromptConfig.of(f"cogvlm2-{style}", 20, 6)
    turns = [Turn("gpt" if number % 2 else "human", text) for number, text in enumerate(texts)]
    if num_frames:
        shown = cogvlm2_video.expand_video(f"<video>\n{turns[0].text}", num_frames, config, ())
        turns[0] = Turn("human", shown)
    views = cogvlm2_video.views([(30, 20)] * num_frames, config, 1, is_video=True)
    return cogvlm2_video.encode(turns, TOKENIZER, config, views)


def ids_of(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("style", "texts", "written"),
    [
        ("chat", ["What?"], "Question: What? Answer:"),
        ("vqa", ["What?"], "Question: What? Short answer:"),
        ("base", ["A {} film"], "A {} film"),
        ("chat", ["What?", "A dog.", "Why?"], "Question: What? Answer: A dog.\nQuestion: Why? Answer:"),
    ],
)
def test_a_prompt_is_the_frames_and_one_text(style: str, texts: list[str], written: str) -> None:
    numbers = [ids_of(str(number)) if style != "base" else [] for number in range(11)]
    frames = [token for number in numbers for token in (*FRAME, *number)]
    encoded = encode(style, 11, *texts)
    assert encoded.input_ids == [BEGIN, *frames, *ids_of(written)]
    assert set(encoded.labels) == {IGNORE_INDEX}


def test_positions_are_shared_inside_a_frame() -> None:
    chat = encode("chat", 2, "Hm").position_ids
    assert chat is not None
    assert chat[:16] == [0, 1, 2, 2, 2, 2, 3, 4, 5, 6, 6, 6, 6, 7, 8, 9]
    base = encode("base", 2, "Hm").position_ids
    assert base == [0, 1, *[2] * 10, 3, 4, 5]


def test_the_last_answer_is_learned_with_its_end() -> None:
    encoded = encode("chat", 1, "What?", "A dog.", "Why?", "It barks.")
    answer = [*ids_of(" It barks."), END]
    asked = encode("chat", 1, "What?", "A dog.", "Why?")
    assert encoded.input_ids == [*asked.input_ids, *answer]
    assert encoded.labels == [IGNORE_INDEX] * len(asked.input_ids) + answer


def test_text_alone_counts_its_positions() -> None:
    encoded = encode("chat", 0, "Hm")
    assert encoded.input_ids == [BEGIN, *ids_of("Question: Hm Answer:")]
    assert encoded.position_ids == list(range(len(encoded.input_ids)))


def test_images_stand_before_the_first_question() -> None:
    config = PromptConfig.of("cogvlm2-base", 20, 6)
    views = cogvlm2_video.views([(30, 20)] * 2, config, 1, is_video=False)
    encoded = cogvlm2_video.encode([Turn("human", "<image>\n<image>\nWhich?")], TOKENIZER, config, views)
    assert encoded.input_ids == [BEGIN, *FRAME, *FRAME, *ids_of("Which?")]
    with pytest.raises(ValueError, match="all stand before the first question"):
        cogvlm2_video.encode([Turn("human", "<image> and <image>?")], TOKENIZER, config, views)


@pytest.mark.parametrize(
    ("turns", "told"),
    [
        ([Turn("system", "Be brief."), Turn("human", "Hm")], "no place for a system's message"),
        ([Turn("gpt", "Hm")], "turn 1 is from 'gpt'"),
        ([Turn("human", f"Say {cogvlm2_video.IMAGE_TOKEN}")], "stands for pixels"),
    ],
)
def test_what_cannot_be_written_is_told(turns: list[Turn], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        cogvlm2_video.encode(turns, TOKENIZER, PromptConfig.of("cogvlm2-chat", 20, 6), [])


def test_crops_have_no_place() -> None:
    with pytest.raises(ValueError, match="crops"):
        cogvlm2_video.expand_video("<video>\nHm", 2, PromptConfig.of("cogvlm2-chat", 20, 6), ("Crop",))


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_the_model_counts_positions_alike(is_visual: list[bool]) -> None:
    counted = position_ids_of(torch.tensor([is_visual]))[0].tolist()
    assert cogvlm2_video.position_ids_of(np.array(is_visual)).tolist() == counted


def test_a_frame_is_shrunk_to_its_shorter_side_and_its_centre_cut_out() -> None:
    frames: Any = np.zeros((3, 40, 90, 3), np.uint8)
    frames[1, :, 22:68] = (255, 0, 128)  # the centre of the second frame alone
    config = PromptConfig.of("cogvlm2-chat", 20, 6)
    views = [view for one in cogvlm2_video.views([(90, 40)] * 3, config, 1, is_video=True) for view in one]
    pixels = cogvlm2_video.pixels(SamplePictures(lambda: frames), views, config)["pixel_values"]
    assert pixels.shape == (3, 3, 20, 20)
    expected = (torch.tensor([1, 0, 128 / 255]) - torch.tensor([0.48145466, 0.4578275, 0.40821073])) / torch.tensor(
        [0.26862954, 0.26130258, 0.27577711]
    )
    assert torch.allclose(pixels[1], expected[:, None, None].expand(3, 20, 20), atol=1e-5)
    assert torch.equal(pixels[0], pixels[2])
