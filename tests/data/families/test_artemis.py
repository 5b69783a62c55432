"""Artemis' data: what of a picture is shown, where a video's slots stand, and what is learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from internvl_chat.constants import IGNORE_INDEX, NORMALISATIONS
from internvl_chat.contracts import Sample, Turn
from internvl_chat.data.families import artemis
from internvl_chat.data.media.tiling import boxes_on_tiles
from internvl_chat.data.prompts.encoder import SampleEncoder
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.data.prompts.sample_pictures import SamplePictures
from internvl_chat.data.training_set.dataset import CaptionDataset
from tests.families import family_tokenizer

SIDE_PX, TOKENS = 12, 3
CONFIG = PromptConfig.of("vicuna_v1", SIDE_PX, TOKENS, normalize_type="clip")
SIZE_PX = (40, 30)


def tokenizer_of():  # noqa: ANN201
    made = family_tokenizer(begins_with_bos=True)
    made.add_tokens(["</s>", *artemis.SPECIAL_TOKENS], special_tokens=True)
    return made


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (SIZE_PX[1], SIZE_PX[0], 3), dtype=np.uint8)


def test_a_box_is_brought_into_the_middle_that_clip_sees() -> None:
    """Of 40 x 30 pixels the columns 5 to 34 are seen: what lies left of them is not, what spans them is cut."""
    (view,), _ = artemis.views([SIZE_PX, SIZE_PX], CONFIG, 1, is_video=True)
    assert view.part == (5 / 40, 0, 35 / 40, 1)
    boxes_px = np.array([[0, 3, 20, 30], [8, 0, 20, 15], [1, 1, 5, 9]])
    boxes = np.rint(boxes_px / [40, 30, 40, 30] * 1000).astype(np.int64)
    on_tiles = boxes_on_tiles(boxes, [view.part] * 3).tolist()
    assert on_tiles == [[0, 100, 500, 1000], [100, 0, 500, 500], [0, 0, 0, 0]]
    assert artemis.centre_part((30, 40)) == (0, 5 / 40, 1, 35 / 40)


def test_images_are_shown_and_frames_stand_for_their_video() -> None:
    pictures = SamplePictures(lambda: [picture(seed) for seed in range(3)])
    tiles = {
        is_video: [view for views in artemis.views([SIZE_PX] * 3, CONFIG, 1, is_video) for view in views]
        for is_video in (True, False)
    }
    video, images = (artemis.pixels(pictures, tiles[is_video], CONFIG) for is_video in (True, False))
    assert video["shown"].tolist() == [0, 0, 0] and images["shown"].tolist() == [1, 1, 1]
    assert video["video_starts"].tolist() == [1, 0, 0] and images["video_starts"].tolist() == []
    torch.testing.assert_close(video["pixel_values"], images["pixel_values"])
    assert video["pixel_values"].shape == video["video_frames"].shape == (3, 3, SIDE_PX, SIDE_PX)
    assert (artemis.num_tiles(video), artemis.num_tiles(images)) == (6, 3)
    mean, std = NORMALISATIONS["clip"]
    nearest = picture(1)[np.arange(SIDE_PX) * 30 // SIDE_PX][:, np.arange(SIDE_PX) * 40 // SIDE_PX]
    expected = (nearest / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(video["video_frames"][1].permute(1, 2, 0).numpy(), expected, atol=1e-5)
    blank = artemis.blank(CONFIG)
    assert blank.keys() - video.keys() == {"boxes"} and not blank["shown"].any()


def test_the_template_and_what_is_learned() -> None:
    tokenizer = tokenizer_of()
    question = artemis.expand_video("<video>\nWhat is the <bbox> doing?", 7, CONFIG, ())
    turns = [Turn("human", question), Turn("gpt", "it runs"), Turn("human", "and <image>?"), Turn("gpt", "it sits")]
    frame, image = (artemis.views([SIZE_PX], CONFIG, 1, is_video=video) for video in (True, False))
    encoded = artemis.encode(turns, tokenizer, CONFIG, [*frame, *image])
    text = tokenizer.decode(encoded.input_ids)
    assert text == (
        "<s>A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions. "
        f"USER: {artemis.VIDEO_TOKEN * 103}\nWhat is the <bbox> doing? ASSISTANT: it runs</s>"
        f"USER: and {artemis.IMAGE_TOKEN * TOKENS}? ASSISTANT: it sits</s>"
    )
    learned = [label for label in encoded.labels if label != IGNORE_INDEX]
    assert tokenizer.decode(learned) == " it runs</s> it sits</s>"
    assert all(label in (IGNORE_INDEX, i) for label, i in zip(encoded.labels, encoded.input_ids, strict=True))
    prompt = artemis.encode([Turn("system", "Short."), *turns[:1]], tokenizer, CONFIG, frame)
    assert tokenizer.decode(prompt.input_ids).startswith("<s>Short. USER: ")
    assert tokenizer.decode(prompt.input_ids).endswith("doing? ASSISTANT:")
    assert set(prompt.labels) == {IGNORE_INDEX}


def test_a_passs_length_is_known_before_a_picture_is_read(tmp_path: Path) -> None:
    """A video has its tokens once, whatever its frames; an image has its own."""
    for clip, count in (("a", 5), ("b", 3)):
        (tmp_path / clip).mkdir()
        for number in range(count):
            Image.fromarray(picture(number)).save(tmp_path / clip / f"{number}.png")
    turns = (Turn("human", "<video>\nWhat?"), Turn("gpt", "x"))
    shown = (Turn("human", "<image>\n<image>\nWhat?"), Turn("gpt", "xyz"))
    samples = [
        Sample("1", turns, "s:1", video_path=tmp_path / "a"),
        Sample("2", turns, "s:2", video_path=tmp_path / "b"),
        Sample("3", shown, "s:3", image_paths=(tmp_path / "a" / "0.png", tmp_path / "b" / "1.png")),
        Sample("4", (Turn("human", "What?"), Turn("gpt", "xy")), "s:4"),
    ]
    dataset = CaptionDataset(samples, SampleEncoder(tokenizer_of(), CONFIG), min_num_frame=4, max_num_frame=4, seed=1)
    sizes = dataset.sizes(epoch=0)
    assert [size.tokens for size in sizes] == [len(dataset[number]["input_ids"]) for number in range(4)]
    # A video of fewer frames than are asked for is not filled up.
    assert [size.tiles for size in sizes] == [4, 3, 2, 0]


@pytest.mark.parametrize(
    ("text", "num_frames", "crops", "message"),
    [
        ("no video", 3, (), "expected one '<video>'"),
        ("<video>\n<video>\n", 3, (), "expected one '<video>'"),
        ("<video>\nWhat?", 101, (), "101 frames: Artemis is shown at most 100"),
        ("<video>\nWhat?", 3, (1,), "without crops"),
    ],
)
def test_what_cannot_be_shown_is_named(text: str, num_frames: int, crops: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        artemis.expand_video(text, num_frames, CONFIG, crops)
