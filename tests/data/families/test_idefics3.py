"""Idefics3's prompts and pixels: those of transformers' own processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from internvl_chat.constants import IGNORE_INDEX
from internvl_chat.contracts import Sample, Turn, UserError
from internvl_chat.data.prompts.encoder import SampleEncoder
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.data.records.annotations import DatasetEntry, read_samples
from internvl_chat.data.training_set.dataset import CaptionDataset
from tests.tiny_idefics3 import TILE_PX, TOKENS, tiny_processor, tiny_tokenizer

SIZES_PX = {"wide": (130, 60), "tall": (50, 90), "square": (33, 33)}
TURNS = (Turn("human", "<image> and <image>what?"), Turn("gpt", "a cat"), Turn("human", "why?"))
MESSAGES = [
    {
        "role": "user",
        "content": [{"type": "image"}, {"type": "text", "text": " and "}, {"type": "image"}]
        + [{"type": "text", "text": "what?"}],
    },
    {"role": "assistant", "content": [{"type": "text", "text": "a cat"}]},
    {"role": "user", "content": [{"type": "text", "text": "why?"}]},
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, (width_px, height_px) in SIZES_PX.items():
        Image.fromarray(rng.integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return {name: folder / f"{name}.png" for name in SIZES_PX}


@pytest.fixture
def encode() -> Callable[..., SampleEncoder]:
    def with_settings(**changes: Any) -> SampleEncoder:
        settings = {"normalize_type": "siglip", "dynamic_image_size": True, "max_dynamic_patch": 16, **changes}
        return SampleEncoder(tiny_tokenizer(), PromptConfig.of("idefics3", TILE_PX, TOKENS, **settings))

    return with_settings


def theirs(paths: list[Path], messages: list[dict[str, Any]], split: bool) -> dict[str, torch.Tensor]:
    processor = tiny_processor()
    text = processor.apply_chat_template(messages, add_generation_prompt=messages[-1]["role"] == "user")
    images = [[Image.open(path) for path in paths]]
    # The template writes the BOS already.
    return processor(
        text=[text], images=images, do_image_splitting=split, add_special_tokens=False, return_tensors="pt"
    )


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("names", [("wide", "tall"), ("tall", "square")])
def test_several_images_are_those_of_the_processor(
    split: bool, names: tuple[str, ...], encode: Callable[..., SampleEncoder], pictures: dict[str, Path]
) -> None:
    paths = [pictures[name] for name in names]
    sample = Sample("a", TURNS, "here", image_paths=tuple(paths))
    # Images share the most tiles that are allowed: here 16 for each of two.
    features = encode(dynamic_image_size=split, max_dynamic_patch=32)(sample, np.arange(2))
    expected = theirs(paths, MESSAGES, split)
    assert torch.equal(features["input_ids"], expected["input_ids"][0])
    assert torch.equal(features["vision"]["pixel_values"], expected["pixel_values"][0])
    assert (len(features["vision"]["pixel_values"]) > 2) == split


def test_fewer_tiles_where_fewer_are_allowed(encode: Callable[..., SampleEncoder], pictures: dict[str, Path]) -> None:
    sample = Sample("a", (Turn("human", "<image>what?"),), "here", image_paths=(pictures["wide"],))
    tiles = [len(encode(max_dynamic_patch=most).plan(sample, np.arange(1)).views) for most in (1, 4, 9, 16)]
    # 130 x 60 on a grid 2, 3 or 4 wide, and the whole.
    assert tiles == [1, 1 + 2 * 1, 1 + 3 * 2, 1 + 4 * 2]


@pytest.mark.parametrize(
    ("turns", "text"),
    [
        ((Turn("human", "Hi"),), "<|begin_of_text|>User: Hi<end_of_utterance>\nAssistant:"),
        (
            (Turn("system", "Be brief."), Turn("human", "Hi"), Turn("gpt", "Yes")),
            "<|begin_of_text|>System: Be brief.<end_of_utterance>\nUser: Hi<end_of_utterance>\n"
            "Assistant: Yes<end_of_utterance>\n",
        ),
    ],
)
def test_text_alone(turns: tuple[Turn, ...], text: str, encode: Callable[..., SampleEncoder]) -> None:
    features = encode()(Sample("a", turns, "here"), np.arange(0))
    assert tiny_tokenizer().decode(features["input_ids"]) == text
    assert features["vision"] == {}


def test_learned_are_answers_and_their_end(encode: Callable[..., SampleEncoder], pictures: dict[str, Path]) -> None:
    turns = (*TURNS, Turn("gpt", "so it is"))
    sample = Sample("a", turns, "here", image_paths=(pictures["wide"], pictures["tall"]))
    whole, prompt = (encode()(replace(sample, turns=turns[:stop]), np.arange(2)) for stop in (4, 3))
    labels = whole["labels"]
    assert tiny_tokenizer().decode(labels[labels != IGNORE_INDEX]) == (
        " a cat<end_of_utterance> so it is<end_of_utterance>"
    )
    # What is learned is what generation will be asked for.
    assert torch.equal(whole["input_ids"][: len(prompt["input_ids"])], prompt["input_ids"])


def test_frames_are_whole_tiles_and_crops_follow(
    encode: Callable[..., SampleEncoder], shapes_entry: DatasetEntry
) -> None:
    sample = read_samples(shapes_entry)[0]
    encoder = encode(crop_frames=1)
    features = encoder(sample, np.array([0, 9, 17]))
    plan = encoder.plan(sample, np.array([0, 9, 17]))
    frames = [Image.fromarray(frame) for frame in encoder.pictures(sample, plan)]
    images = tiny_processor().image_processor([frames], do_image_splitting=False, return_tensors="pt")
    pixels = features["vision"]["pixel_values"]
    assert pixels.shape == (4, 3, TILE_PX, TILE_PX)
    assert torch.equal(pixels[:3], images["pixel_values"][0])
    assert not any(torch.equal(pixels[3], frame) for frame in pixels[:3])
    text = tiny_tokenizer().decode(features["input_ids"])
    frame = f"<fake_token_around_image><global-img>{'<image>' * TOKENS}<fake_token_around_image>\n"
    assert "".join(f"Frame-{number}: {frame}" for number in (1, 2, 3)) in text


def test_sizes_are_known_before_anything_is_decoded(
    encode: Callable[..., SampleEncoder], pictures: dict[str, Path], shapes_entry: DatasetEntry
) -> None:
    image = Sample("a", (*TURNS[:1], Turn("gpt", "a cat")), "here", image_paths=(pictures["wide"], pictures["tall"]))
    samples = [image, *read_samples(shapes_entry)[:2]]
    dataset = CaptionDataset(samples, encode(), min_num_frame=2, max_num_frame=3)
    items = [dataset[index] for index in range(len(dataset))]
    sizes = [(len(item["input_ids"]), len(item["vision"]["pixel_values"])) for item in items]
    assert [(size.tokens, size.tiles) for size in dataset.sizes(0)] == sizes


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ((Turn("human", "Hi"), Turn("gpt", "an <image>")), "'gpt' holds <image>"),
        ((Turn("human", "a <fake_token_around_image>"),), "stands for pixels"),
        ((Turn("gpt", "Yes"),), "turn 1 is from 'gpt'"),
        ((Turn("human", "<image>"),), "1 '<image>' placeholders for 0 images"),
    ],
)
def test_what_cannot_be_written_is_refused(
    turns: tuple[Turn, ...], reason: str, encode: Callable[..., SampleEncoder]
) -> None:
    with pytest.raises(UserError, match=reason):
        encode()(Sample("a", turns, "here"), np.arange(0))
