"""Samples of every kind to tensors, and the ways to tell the model which object is meant, alone and together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast

from internvl_chat.choices import PROMPT_FORMS
from internvl_chat.constants import IGNORE_INDEX, IMG_CONTEXT, NORMALISATIONS
from internvl_chat.contracts import Features, Sample, UserError
from internvl_chat.data.controls.drawn_box import draw_boxes
from internvl_chat.data.media.sources import read_pictures
from internvl_chat.data.media.transforms import TileTransform, recompressed
from internvl_chat.data.prompts.encoder import SampleEncoder
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.data.prompts.wordings import WORDINGS, wording_named
from internvl_chat.data.records.reader import RecordReader
from internvl_chat.model.pixels import normalised

SIDE, TOKENS = 28, 3
IMAGE = f"<img>{IMG_CONTEXT * TOKENS}</img>"
DOG = {"name": "dog", "boxes": {"0": [100, 200, 500, 600], "2": [200, 200, 400, 400]}}
DOG |= {"unit": "thousandths", "order": "xyxy"}
CAT = {**DOG, "name": "cat", "boxes": {"1": [0, 0, 500, 1000]}}
QUESTION = f"<video>\n{wording_named('coordinates').asks('dog')}"


@pytest.fixture
def encode(tokenizer: PreTrainedTokenizerFast) -> Callable[..., SampleEncoder]:
    def with_settings(**settings: Any) -> SampleEncoder:
        return SampleEncoder(tokenizer, PromptConfig.of("internvl2_5", SIDE, TOKENS, **settings))

    return with_settings


def turns_of(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]


def sample_of(root: Path, question: str, answer: str = "yes", /, **fields: Any) -> Sample:
    return RecordReader(root).read({"id": 1, "conversations": turns_of(question, answer), **fields}, "a.jsonl:4")


def question_of(features: Features, encoder: SampleEncoder) -> str:
    text = encoder.tokenizer.decode(features["input_ids"])
    return text.split("<|im_start|>user\n")[1].split("<|im_end|>")[0]


def shown(encoder: SampleEncoder, sample: Sample, num_frames: int = 4) -> Features:
    """The sample's features, its pixels as the tower has them."""
    features = encoder(sample, encoder.choose_frames(sample, num_frames, "middle"))
    return {**features, "vision": normalised(features["vision"], torch.float32)}


def test_text_alone_has_no_tiles(encode: Callable[..., SampleEncoder], tmp_path: Path) -> None:
    encoder = encode()
    features = shown(encoder, sample_of(tmp_path, "What is 2 + 2?", "4"))
    assert features["vision"] == {}
    assert question_of(features, encoder) == "What is 2 + 2?"
    learned = features["labels"][features["labels"] != IGNORE_INDEX]
    assert encoder.tokenizer.decode(learned) == "4<|im_end|>"


def test_an_image_is_one_tile_without_tiling(encode: Callable[..., SampleEncoder], media_root: Path) -> None:
    encoder = encode()
    features = shown(encoder, sample_of(media_root, "what?", image="wide.png"))
    picture = np.array(Image.open(media_root / "wide.png"))
    assert torch.equal(features["vision"]["pixel_values"], TileTransform(SIDE)(picture[None]))
    assert question_of(features, encoder) == f"{IMAGE}\nwhat?"
    assert features["vision"]["boxes"].tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize(("use_thumbnail", "num_tiles"), [(False, 3), (True, 4)])
def test_an_image_is_cut_into_tiles(
    use_thumbnail: bool, num_tiles: int, encode: Callable[..., SampleEncoder], media_root: Path
) -> None:
    encoder = encode(dynamic_image_size=True, max_dynamic_patch=5, use_thumbnail=use_thumbnail)
    features = shown(encoder, sample_of(media_root, "what?", image="wide.png"))
    image = Image.open(media_root / "wide.png")
    cells = np.asarray(image.resize((3 * SIDE, SIDE), Image.Resampling.BICUBIC)).reshape(SIDE, 3, SIDE, 3)
    expected = TileTransform(SIDE)(cells.swapaxes(0, 1))
    assert len(features["vision"]["pixel_values"]) == len(features["vision"]["boxes"]) == num_tiles
    assert torch.equal(features["vision"]["pixel_values"][:3], expected)
    assert question_of(features, encoder) == f"<img>{IMG_CONTEXT * TOKENS * num_tiles}</img>\nwhat?"


def test_several_images_share_the_tiles(encode: Callable[..., SampleEncoder], media_root: Path) -> None:
    """120 x 40 and 30 x 50: with up to six tiles three and two; three each leave the second a grid of 1 x 2."""
    encoder = encode(dynamic_image_size=True, max_dynamic_patch=6)
    sample = sample_of(media_root, "<image> and <image>?", image=["wide.png", "tall.jpg"])
    features = shown(encoder, sample)
    tall = IMG_CONTEXT * TOKENS * 2
    assert question_of(features, encoder) == f"<img>{IMG_CONTEXT * TOKENS * 3}</img> and <img>{tall}</img>?"
    assert len(features["vision"]["pixel_values"]) == 5
    assert len(shown(encode(dynamic_image_size=True, max_dynamic_patch=2), sample)["vision"]["pixel_values"]) == 2
    assert len(shown(encoder, replace(sample, max_dynamic_patch=1))["vision"]["pixel_values"]) == 2


def test_grounding_answers_pass_through_unchanged(encode: Callable[..., SampleEncoder], media_root: Path) -> None:
    answer = (
        "Sure.\n```\n<ref>Gun Model</ref><box>[[32, 231, 977, 662]]</box>\n<ref>screw</ref><box>[[1, 2, 3, 4]]</box>"
    )
    encoder = encode(coordinates="on", red_box="on", crop_frames=2)
    features = shown(encoder, sample_of(media_root, "<image>\nPlease detect.", answer, image="tall.jpg"))
    learned = features["labels"][features["labels"] != IGNORE_INDEX]
    assert encoder.tokenizer.decode(learned) == f"{answer}<|im_end|>"
    assert question_of(features, encoder) == f"{IMAGE}\nPlease detect."


@pytest.mark.parametrize(("video", "num_frames"), [("clip.mp4", 24), ("clip.gif", 7), ("frames", 11)])
def test_a_plain_video_is_frames_without_boxes(
    video: str, num_frames: int, encode: Callable[..., SampleEncoder], media_root: Path
) -> None:
    encoder = encode(dynamic_image_size=True, use_thumbnail=True)
    sample = sample_of(media_root, "<video>\nwhat?", video=video)
    features = shown(encoder, sample, 3)
    indices = encoder.choose_frames(sample, 3, "middle")
    assert indices[-1] < num_frames
    frames = np.asarray(read_pictures(sample, indices))
    assert torch.equal(features["vision"]["pixel_values"], TileTransform(SIDE)(frames))
    assert question_of(features, encoder) == f"Frame-1: {IMAGE}\nFrame-2: {IMAGE}\nFrame-3: {IMAGE}\nwhat?"
    assert not features["vision"]["boxes"].any() and features["vision"]["boxes"].shape == (3, 4)


def test_a_clip_shows_its_seconds(encode: Callable[..., SampleEncoder], media_root: Path) -> None:
    encoder = encode()
    sample = sample_of(media_root, "<video>\nwhat?", video="clip.mp4", clip=[0.5, 1.5])  # twelve frames a second
    assert encoder.choose_frames(sample, 13, "middle").tolist() == list(range(6, 19))
    assert encoder.choose_frames(sample, 2, "centre").tolist() == [9, 15]
    drawn = [encoder.choose_frames(sample, 3, "rand", np.random.default_rng(seed)) for seed in range(50)]
    assert (np.min(drawn), np.max(drawn)) == (6, 18)
    assert encoder.choose_frames(sample, 9, "fps4").tolist() == [8, 10, 14, 16]
    assert encoder.choose_frames(replace(sample, clip_s=(1.5, 2.9)), 20, "middle").tolist()[:6] == list(range(18, 24))
    for clip, video, said in (
        ((2.0, 3.0), "clip.mp4", "begins after the end of the video, which lasts 2.00 s"),
        ((1.5, 9.0), "clip.mp4", "ends after the end of the video, which lasts 2.00 s"),
        ((0.0, 1.0), "frames", "states no rate"),
    ):
        with pytest.raises(UserError, match=f"a.jsonl:4: sample '1': .*{said}"):
            encoder.choose_frames(replace(sample, clip_s=clip, video_path=media_root / video), 4, "middle")


def test_a_tracked_video_is_the_specifications_text(encode: Callable[..., SampleEncoder], media_root: Path) -> None:
    sample = sample_of(media_root, QUESTION, video="frames", tracks=[DOG])
    features = encode()(sample, np.array([0, 1, 2]))
    assert question_of(features, encode()) == (
        f"Frame-1: {IMAGE}\nFrame-2: {IMAGE}\nFrame-3: {IMAGE}\n"
        "Describe this video in one sentence, and focus on dog located in the coordinate list. "
        "The coordinates in each frame are:\n1. <ref>dog</ref><box>[[100, 200, 500, 600]]</box>\n"
        "2. <ref>dog</ref>absent\n3. <ref>dog</ref><box>[[200, 200, 400, 400]]</box>\n."
    )
    assert features["vision"]["boxes"].tolist() == [[100, 200, 500, 600], [0] * 4, [200, 200, 400, 400]]


def test_several_objects_are_all_named_and_the_first_is_pointed_at(
    encode: Callable[..., SampleEncoder], media_root: Path
) -> None:
    sample = sample_of(media_root, QUESTION, video="frames", tracks=[DOG, CAT])
    features = encode()(sample, np.array([0, 1]))
    assert question_of(features, encode()).endswith(
        "\n1. <ref>dog</ref><box>[[100, 200, 500, 600]]</box>, <ref>cat</ref>absent\n"
        "2. <ref>dog</ref>absent, <ref>cat</ref><box>[[0, 0, 500, 1000]]</box>\n."
    )
    assert features["vision"]["boxes"].tolist() == [[100, 200, 500, 600], [0] * 4]


def test_boxes_on_an_image_reach_the_tiles_they_meet(encode: Callable[..., SampleEncoder], media_root: Path) -> None:
    track = {**DOG, "boxes": [[0, 100, 500, 700]]}
    sample = sample_of(media_root, "what?", image="wide.png", tracks=[track])
    features = shown(encode(dynamic_image_size=True, max_dynamic_patch=5, use_thumbnail=True), sample)
    assert features["vision"]["boxes"].tolist() == [
        [0, 100, 1000, 700],
        [0, 100, 500, 700],
        [0] * 4,
        [0, 100, 500, 700],
    ]
    padded = shown(encode(pad2square=True), sample)  # 120 x 40: the picture is the middle third of the square
    assert padded["vision"]["boxes"].tolist() == [[0, 367, 500, 567]]
    fill = (np.array([123, 116, 103]) / 255 - NORMALISATIONS["imagenet"][0]) / NORMALISATIONS["imagenet"][1]
    assert np.allclose(padded["vision"]["pixel_values"][0, :, 0, 0], fill, atol=1e-5)


def text_with(encode: Callable[..., SampleEncoder], sample: Sample, **settings: Any) -> str:
    return question_of(encode(**settings)(sample, np.array([0, 2])), encode())


@pytest.mark.parametrize("form", PROMPT_FORMS)
@pytest.mark.parametrize(("lists", "paints"), [(True, True), (True, False), (False, True), (False, False)])
def test_any_question_of_the_forms_becomes_the_one_that_goes_with_the_settings(
    form: str, lists: bool, paints: bool, encode: Callable[..., SampleEncoder], media_root: Path
) -> None:
    """One annotation serves every experiment: text and pixels follow the settings, whatever form it was written in."""
    sample = sample_of(media_root, f"<video>\n{wording_named(form).asks('dog')}", video="frames", tracks=[DOG])
    target = WORDINGS[frozenset(name for name, on in (("coordinates", lists), ("drawn_box", paints)) if on)]
    direct = sample_of(media_root, f"<video>\n{target.asks('dog')}", video="frames", tracks=[DOG])
    settings = {"coordinates": "on" if lists else "off", "red_box": "on" if paints else "off"}
    switched, written = (e(s, np.array([0, 2])) for e, s in ((encode(**settings), sample), (encode(), direct)))
    assert all(torch.equal(switched[key], written[key]) for key in ("input_ids", "labels"))
    assert all(torch.equal(switched["vision"][key], written["vision"][key]) for key in ("pixel_values", "boxes"))


def test_a_question_of_the_users_own_gets_its_list_at_the_end(
    encode: Callable[..., SampleEncoder], media_root: Path
) -> None:
    sample = sample_of(media_root, "<video>\nWhere does it go?", video="frames", tracks=[DOG])
    assert text_with(encode, sample).endswith("Where does it go?")
    assert text_with(encode, sample, coordinates="on").endswith(
        "Where does it go? The coordinates in each frame are:\n1. <ref>dog</ref><box>[[100, 200, 500, 600]]</box>\n"
        "2. <ref>dog</ref><box>[[200, 200, 400, 400]]</box>\n."
    )


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"coordinate_unit": "unit"}, "1. <ref>dog</ref><box>[[0.100, 0.200, 0.500, 0.600]]</box>"),
        ({"coordinate_unit": "percent"}, "1. <ref>dog</ref><box>[[10.0, 20.0, 50.0, 60.0]]</box>"),
        (
            {"coordinate_unit": "unit", "coordinate_decimals": 1},
            "1. <ref>dog</ref><box>[[0.1, 0.2, 0.5, 0.6]]</box>",
        ),
    ],
)
def test_units_and_decimals_of_the_list(
    settings: dict[str, Any], line: str, encode: Callable[..., SampleEncoder], media_root: Path
) -> None:
    sample = sample_of(media_root, QUESTION, video="frames", tracks=[DOG])
    assert f"are:\n{line}\n2. " in text_with(encode, sample, **settings)


def test_stride_and_wording_of_the_list(encode: Callable[..., SampleEncoder], media_root: Path) -> None:
    sample = sample_of(media_root, QUESTION, video="frames", tracks=[DOG])
    encoder = encode(coordinate_stride=2, absent_boxes="not to be seen")
    text = question_of(encoder(sample, np.array([0, 1, 2, 3, 4])), encoder)
    assert text.endswith(
        "are:\n1. <ref>dog</ref><box>[[100, 200, 500, 600]]</box>\n3. <ref>dog</ref><box>[[200, 200, 400, 400]]</box>\n"
        "5. <ref>dog</ref>not to be seen\n."
    )


def test_frame_labels_of_the_model_cards(encode: Callable[..., SampleEncoder], media_root: Path) -> None:
    sample = sample_of(media_root, "<video>\nwhat?", video="frames")
    assert text_with(encode, sample, frame_label="Frame1") == f"Frame1: {IMAGE}\nFrame2: {IMAGE}\nwhat?"


def test_crops_follow_the_frames(encode: Callable[..., SampleEncoder], media_root: Path) -> None:
    sample = sample_of(media_root, QUESTION, video="clip.mp4", tracks=[DOG])
    encoder = encode(crop_frames=2, crop_margin=0)
    features = encoder(sample, np.array([0, 1, 2]))
    assert question_of(features, encoder).startswith(
        f"Frame-1: {IMAGE}\nFrame-2: {IMAGE}\nFrame-3: {IMAGE}\n"
        f"Crop of Frame-1: {IMAGE}\nCrop of Frame-3: {IMAGE}\nDescribe"
    )
    frame = read_pictures(sample, np.array([0]))[0]  # 192 x 144, the box is 19.2 28.8 96 86.4
    image = Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(19.2, 28.8, 96, 86.4))
    pixels = normalised(features["vision"], torch.float32)["pixel_values"]
    assert torch.equal(pixels[3], TileTransform(SIDE)(np.asarray(image)[None])[0])
    assert features["vision"]["boxes"].tolist()[3:] == [[0, 0, 1000, 1000]] * 2
    assert len(encode(crop_frames=1)(sample, np.array([0, 1, 2]))["vision"]["boxes"]) == 4
    # Nothing to be seen, nothing to crop.
    assert len(encode(crop_frames=9)(sample, np.array([1, 3]))["vision"]["boxes"]) == 2


def test_crops_of_images_follow_the_last_of_them(encode: Callable[..., SampleEncoder], media_root: Path) -> None:
    track = {**DOG, "boxes": [[0, 0, 500, 500], [100, 100, 200, 300]]}
    sample = sample_of(media_root, "<image> or <image>\nwhich?", image=["wide.png", "tall.jpg"], tracks=[track])
    encoder = encode(crop_frames=5)
    features = shown(encoder, sample)
    assert question_of(features, encoder) == (
        f"{IMAGE} or {IMAGE}\nCrop of Image-1: {IMAGE}\nCrop of Image-2: {IMAGE}\nwhich?"
    )
    assert features["vision"]["boxes"].tolist() == [
        [0, 0, 500, 500],
        [100, 100, 200, 300],
        [0, 0, 800, 800],
        [167, 167, 833, 833],
    ]


def test_without_the_adapter_no_tile_has_a_box(encode: Callable[..., SampleEncoder], media_root: Path) -> None:
    sample = sample_of(media_root, QUESTION, video="frames", tracks=[DOG])
    with_boxes, without = (encode(box_adapter=on)(sample, np.array([0, 2])) for on in (True, False))
    assert with_boxes["vision"]["boxes"].any() and not without["vision"]["boxes"].any()
    assert all(torch.equal(with_boxes[key], without[key]) for key in ("input_ids", "labels"))
    assert torch.equal(with_boxes["vision"]["pixel_values"], without["vision"]["pixel_values"])


def test_everything_together(encode: Callable[..., SampleEncoder], media_root: Path) -> None:
    sample = sample_of(media_root, "<video>\nwhat?", video="frames", tracks=[DOG, CAT])
    encoder = encode(
        coordinates="on", red_box="on", red_box_colour="#00ff00", red_box_width_px=1, crop_frames=1, pad2square=True
    )
    indices = np.array([0, 1])
    plan = encoder.plan(sample, indices)
    plain = read_pictures(sample, indices)
    painted = draw_boxes(plain, np.array([[100, 200, 500, 600], [0] * 4]), "lime", 1)
    painted = draw_boxes(painted, np.array([[0] * 4, [0, 0, 500, 1000]]), "lime", 1)
    assert np.array_equal(np.stack(encoder.pictures(sample, plan)), np.stack(painted))
    assert not np.array_equal(plain, np.stack(painted))
    features = encoder(sample, indices)
    assert len(features["vision"]["pixel_values"]) == len(features["vision"]["boxes"]) == 3
    assert int((features["input_ids"] == encoder.tokenizer.convert_tokens_to_ids(IMG_CONTEXT)).sum()) == 3 * TOKENS
    assert "Crop of Frame-1: " in question_of(features, encoder)
    assert "<ref>cat</ref><box>[[0, 0, 500, 1000]]</box>" in question_of(features, encoder)


def test_a_plan_has_the_length_and_the_boxes_of_what_it_becomes(
    encode: Callable[..., SampleEncoder], media_root: Path
) -> None:
    sample = sample_of(media_root, "<image>\nwhat?", image="wide.png", tracks=[{**DOG, "boxes": [[0, 0, 9, 9]]}])
    encoder = encode(dynamic_image_size=True, use_thumbnail=True, crop_frames=1)
    plan, features = encoder.plan(sample, np.array([0])), encoder(sample, np.array([0]))
    assert plan.input_ids == features["input_ids"].tolist() and plan.labels == features["labels"].tolist()
    assert len(plan.views) == len(plan.boxes) == len(features["vision"]["pixel_values"])


def test_augmentation_draws_from_the_samples_generator_alone(
    encode: Callable[..., SampleEncoder], media_root: Path
) -> None:
    sample = sample_of(media_root, "<image> <image> what?", image=["wide.png", "tall.jpg"])
    augmented = replace(sample, data_augment=True)
    encoder, indices = encode(), np.arange(2)

    def qualities(seed: int) -> tuple[int, ...]:
        return encoder.plan(augmented, indices, np.random.default_rng(seed)).jpeg_qualities

    assert qualities(1) == qualities(1) != qualities(2)
    drawn = [q for seed in range(400) for q in qualities(seed)]
    assert (min(drawn), max(drawn)) == (75, 100)
    plan = encoder.plan(augmented, indices, np.random.default_rng(1))
    first = np.array(Image.open(media_root / "wide.png"))
    assert np.array_equal(encoder.pictures(augmented, plan)[0], recompressed(first, plan.jpeg_qualities[0]))
    assert not np.array_equal(encoder.pictures(augmented, plan)[0], first)
    assert encoder.plan(augmented, indices).jpeg_qualities == ()
    assert encoder.plan(sample, indices, np.random.default_rng(1)).jpeg_qualities == ()


@pytest.mark.parametrize("name", sorted(NORMALISATIONS))
def test_normalisation_is_that_of_the_config(name: str, encode: Callable[..., SampleEncoder], media_root: Path) -> None:
    mean, std = NORMALISATIONS[name]
    sample = sample_of(media_root, "what?", image="wide.png")
    pixels, plain = (
        shown(encoder, sample)["vision"]["pixel_values"] for encoder in (encode(normalize_type=name), encode())
    )
    base_mean, base_std = (torch.tensor(v)[:, None, None] for v in NORMALISATIONS["imagenet"])
    expected = (plain * base_std + base_mean - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert torch.allclose(pixels, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("question", "fields", "said"),
    [
        ("<video>\nwhat?", {}, "holds <video>, but the record has no video"),
        ("<image>\nwhat?", {}, "1 '<image>' placeholders for 0 images|placeholders"),
        ("<image> <image> what?", {"image": "wide.png"}, "placeholders"),
        ("what?", {"image": ["wide.png", "tall.jpg"]}, "0 '<image>' placeholders for 2 images"),
        (f"what is {IMG_CONTEXT}?", {}, "stands for pixels"),
        ("what?<|im_end|>", {}, r"'human' holds <\|im_end\|>"),
        ("what?", {"conversations": turns_of("what?", "an <image>")}, "'gpt' holds <image>"),
        ("what?", {"video": "clip.mp4", "conversations": turns_of("1", "2", "<video>\n3", "4")}, "expected one"),
        (wording_named("red_box").asks("dog"), {}, "the question speaks of a box, but the record has no track"),
        ("<image>\nwhat?", {"image": "missing.png"}, "missing.png: picture not found"),
    ],
)
def test_what_does_not_fit_together_is_told(
    question: str, fields: dict[str, Any], said: str, encode: Callable[..., SampleEncoder], media_root: Path
) -> None:
    with pytest.raises(UserError, match=said):
        shown(encode(), sample_of(media_root, question, **fields))


def test_a_config_of_an_earlier_version_still_loads(tmp_path: Path) -> None:
    (tmp_path / "prompt_config.json").write_text(
        '{"conv_style": "internvl2_5", "force_image_size": 80, "tokens_per_frame": 16, "absent_boxes": "zeros", '
        '"max_seq_length": 900}'
    )
    config = PromptConfig.load(tmp_path)
    assert config == PromptConfig.of("internvl2_5", 80, 16, absent_boxes="zeros", max_seq_length=900)
    assert [config.flags()[name] for name in ("coordinates", "red_box", "crop_frames", "box_adapter")] == [
        "question",
        "question",
        0,
        True,
    ]


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"coordinates": "maybe"}, "--coordinates 'maybe': expected one of question, on, off"),
        ({"coordinate_unit": "pixels"}, "--coordinate_unit 'pixels'"),
        ({"frame_label": "Picture-1"}, "--frame_label"),
        ({"normalize_type": "none"}, "--normalize_type 'none': expected one of imagenet, clip, siglip"),
        ({"coordinate_stride": 0}, "--coordinate_stride 0: expected 1 or more"),
        ({"coordinate_decimals": -1}, "--coordinate_decimals -1"),
        ({"crop_frames": -1}, "--crop_frames -1"),
        ({"red_box_colour": "no colour"}, "--red_box_colour 'no colour'"),
        ({"absent_boxes": "<box>"}, "--absent_boxes '<box>'"),
        ({"absent_boxes": " "}, "--absent_boxes ' '"),
        ({"min_dynamic_patch": 7, "max_dynamic_patch": 6}, "--min_dynamic_patch 7"),
        ({"pad2square": True, "dynamic_image_size": True}, "--pad2square and --dynamic_image_size"),
    ],
)
def test_settings_that_make_no_prompt_name_their_flag(settings: dict[str, Any], flag: str) -> None:
    with pytest.raises(UserError, match=flag):
        PromptConfig.of("internvl2_5", 28, 3, **settings)
