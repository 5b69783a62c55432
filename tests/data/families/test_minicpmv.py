"""MiniCPM-V's data: sizes of pictures, patches, and whose words are learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as nnf

from internvl_chat.constants import IGNORE_INDEX
from internvl_chat.contracts import Sample, Turn
from internvl_chat.data.families import minicpmv
from internvl_chat.data.media.tiling import WHOLE, View
from internvl_chat.data.prompts.encoder import SampleEncoder
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.data.prompts.sample_pictures import SamplePictures
from tests.minicpmv import QUERIES, llama3_tokenizer

CONFIG = PromptConfig.of("minicpmv2_5", 56, QUERIES, normalize_type="siglip")
USER, ASSISTANT = (f"<|start_header_id|>{role}<|end_header_id|>\n\n" for role in ("user", "assistant"))
PICTURE = "<image>" + "<unk>" * QUERIES + "</image>"


@pytest.mark.parametrize(
    ("size_px", "expected"),
    [((448, 448), (448, 448)), ((1280, 720), (602, 336)), ((90, 160), (336, 602)), ((4000, 10), (8806, 28))],
)
def test_a_picture_keeps_its_shape_and_gets_the_pixels_of_a_square(
    size_px: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert minicpmv.shown_size(size_px, 448) == expected


def test_patches_lie_row_by_row_picture_after_picture() -> None:
    rng = np.random.default_rng(3)
    pictures = [rng.integers(0, 256, (40, 90, 3), dtype=np.uint8), rng.integers(0, 256, (70, 31, 3), dtype=np.uint8)]
    views = [View(0, WHOLE), View(1, WHOLE), View(1, (0.5, 0.0, 1.0, 0.5))]
    vision = minicpmv.pixels(SamplePictures(lambda: pictures), views, CONFIG)
    assert vision["grids"].tolist() == [[3, 6], [6, 3], [6, 3]]
    start = 0
    for picture, (rows, columns) in zip(pictures, vision["grids"].tolist(), strict=False):
        resized = Image.fromarray(picture).resize((14 * columns, 14 * rows), Image.Resampling.BICUBIC)
        pixels = torch.tensor(np.asarray(resized)).permute(2, 0, 1) / 255 * 2 - 1
        expected = nnf.unfold(pixels[None], 14, stride=14)[0].T.reshape(-1, 3, 14, 14)
        assert torch.allclose(vision["patches"][start : start + rows * columns], expected, atol=1e-6)
        start += rows * columns
    cut = Image.fromarray(pictures[1]).crop((16, 0, 31, 35))
    expected_size = minicpmv.shown_size(cut.size, 56)
    assert expected_size == (42, 84) and len(vision["patches"]) == start + 18
    assert minicpmv.num_tiles(minicpmv.blank(CONFIG)) == 1 and minicpmv.num_tiles(vision) == 3


def test_answers_alone_are_learned_with_the_end_of_their_turn() -> None:
    tokenizer = llama3_tokenizer()
    turns = [Turn("system", "Be brief."), Turn("human", "<image>\nWho? "), Turn("gpt", " a dog"), Turn("human", "And?")]
    turns.append(Turn("gpt", "no"))
    encoded = minicpmv.encode(turns, tokenizer, CONFIG, [[View(0, WHOLE)]])
    system = USER.replace("user", "system")
    text = f"<|begin_of_text|>{system}Be brief.<|eot_id|>{USER}{PICTURE}\nWho?<|eot_id|>{ASSISTANT}a dog<|eot_id|>"
    text += f"{USER}And?<|eot_id|>{ASSISTANT}no<|eot_id|>"
    assert encoded.input_ids == tokenizer(text, add_special_tokens=False)["input_ids"]
    learned = [token for token in encoded.labels if token != IGNORE_INDEX]
    assert tokenizer.decode(learned) == "a dog<|eot_id|>no<|eot_id|>"
    assert [
        i for i, label in enumerate(encoded.labels) if label != IGNORE_INDEX and label != encoded.input_ids[i]
    ] == []


def test_several_pictures_stand_between_line_breaks_and_a_prompt_waits_for_its_answer(tmp_path: Path) -> None:
    for number, size in enumerate(((30, 20), (20, 30))):
        Image.new("RGB", size, (number, 9, 9)).save(tmp_path / f"{number}.png")
    tokenizer = llama3_tokenizer()
    encoder = SampleEncoder(tokenizer, CONFIG)
    video = Sample("v", (Turn("human", "<video>\nWhat?"),), "a.jsonl:1", video_path=tmp_path)
    (tmp_path / "1.png").unlink()
    Image.new("RGB", (30, 20)).save(tmp_path / "1.png")
    plan = encoder.plan(video, np.array([0, 1]))
    joined = f"{PICTURE}\n\n\n{PICTURE}\n\nWhat?"
    expected = f"<|begin_of_text|>{USER}{joined}<|eot_id|>{ASSISTANT}"
    assert tokenizer.decode(plan.input_ids) == expected
    assert set(plan.labels) == {IGNORE_INDEX}
    assert encoder.pixels(video, plan)["grids"].tolist() == [[3, 5], [3, 5]]
    with pytest.raises(ValueError, match="stands for pixels"):
        minicpmv.encode([Turn("human", "<unk>")], tokenizer, CONFIG, [])
    assert minicpmv.end_tokens(CONFIG) == ("<|eot_id|>",)
