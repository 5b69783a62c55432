"""A question of a harness as a sample: what stands before it, and what cannot be asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.prompts.wordings import question_turn
from internvl_chat.lmms.documents import AskedSample, sample_of


@pytest.fixture
def clip(tmp_path: Path) -> str:
    (tmp_path / "a clip.mp4").touch()
    return str(tmp_path / "a clip.mp4")


def test_what_is_shown_stands_before_the_question(tmp_path: Path, clip: str) -> None:
    sample = sample_of("7", "What moves?", [clip], tmp_path)
    assert (sample.turns[0].text, sample.video_path, sample.image_paths) == ("<video>\nWhat moves?", Path(clip), ())
    assert sample_of("8", "Two and two?", [], tmp_path).turns[0].text == "Two and two?"
    assert sample_of("9", "See <video> here", [clip], tmp_path).turns[0].text == "See <video> here"


def test_pictures_in_memory_are_written_without_loss(tmp_path: Path, clip: str) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    first = tmp_path / "first.png"
    Image.fromarray(pixels[:3]).save(first)
    sample = sample_of("4", "<image> or <image>?", [str(first), Image.fromarray(pixels)], tmp_path)
    assert sample.turns[0].text == "<image> or <image>?"
    assert sample.image_paths[0] == first
    assert np.array_equal(np.asarray(Image.open(sample.image_paths[1])), pixels)


def test_a_sample_of_ones_own_keeps_its_words_and_is_a_path_to_other_models(tmp_path: Path, clip: str) -> None:
    own = Sample("x", (question_turn("<video>\nWhat does it do?"),), "here", video_path=Path(clip))
    visual = AskedSample(own)
    assert visual == clip and sample_of("3", "other words", [visual], tmp_path) is own


@pytest.mark.parametrize(
    ("question", "shown", "message"),
    [
        ("Who?", ["missing.mp4"], "missing.mp4: not found; the question 5 shows it"),
        ("Who?", ["CLIP", "CLIP"], "shows 2 videos among 2 files"),
        ("<image> <image>", ["CLIP"], "has 2 placeholders, expected 1 <video>"),
        ("Who?", [3.5], "shows a float"),
    ],
)
def test_what_cannot_be_asked_is_told(
    tmp_path: Path, clip: str, question: str, shown: list[object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        sample_of("5", question, [clip if item == "CLIP" else item for item in shown], tmp_path)
