"""Samples to features, and the order of an epoch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler

from internvl_chat.boxes import load_boxes, save_boxes
from internvl_chat.choices import PROMPT_FORMS
from internvl_chat.constants import IMAGENET_MEAN, IMAGENET_STD, IMG_CONTEXT
from internvl_chat.contracts import PackedFeatures, Turn, UserError
from internvl_chat.data.controls.drawn_box import draw_boxes
from internvl_chat.data.media.transforms import TileTransform
from internvl_chat.data.media.video import read_frames
from internvl_chat.data.prompts.encoder import PromptConfig, SampleEncoder
from internvl_chat.data.prompts.wordings import question_turn, wording_named
from internvl_chat.data.records.annotations import DatasetEntry, read_samples
from internvl_chat.data.training_set.collator import PackCollator
from internvl_chat.data.training_set.dataset import NO_PASS, CaptionDataset, EpochSampler
from internvl_chat.model.pixels import normalised

NUM_SAMPLES = 30  # three clips, two targets each, five captions each


def dataset_of(entry: DatasetEntry, encoder: SampleEncoder, **changes: object) -> CaptionDataset:
    settings: dict = {"min_num_frame": 2, "max_num_frame": 5, "seed": 11, "captions_per_pass": 1, **changes}
    return CaptionDataset(read_samples(entry), encoder, **settings)


def same(a: PackedFeatures, b: PackedFeatures) -> bool:
    one, other = ({**row, **row["vision"]} for row in (a, b))
    tensors = {key for key in one if key not in ("layout", "vision")}
    return a["layout"] == b["layout"] and all(torch.equal(one[key], other[key]) for key in tensors)


def frame_numbers_of(dataset: CaptionDataset, index: int) -> list[int]:
    """Which frames a sample shows, read off its pixels."""
    (sample,), encoder = dataset.passes[index], dataset.encoder
    every = TileTransform(encoder.config.force_image_size)(read_frames(sample.video_path, np.arange(24)))
    tiles = normalised(dataset[index]["vision"], torch.float32)["pixel_values"]
    return [int((every - tile).flatten(1).abs().sum(1).argmin()) for tile in tiles]


def test_features_have_the_shapes_of_the_contract(shapes_entry: DatasetEntry, encoder: SampleEncoder) -> None:
    features = dataset_of(shapes_entry, encoder, min_num_frame=4, max_num_frame=4)[0]
    assert (
        features["vision"]["pixel_values"].shape == (4, 3, 28, 28)
        and features["vision"]["pixel_values"].dtype == torch.uint8
    )
    assert features["vision"]["boxes"].shape == (4, 4) and features["vision"]["boxes"].dtype == torch.int64
    assert features["input_ids"].shape == features["position_ids"].shape and features["input_ids"].dtype == torch.int64
    assert features["layout"][0].length == len(features["input_ids"])
    assert features["target_positions"].shape == features["target_ids"].shape == features["loss_weights"].shape
    context = encoder.tokenizer.convert_tokens_to_ids(IMG_CONTEXT)
    assert int((features["input_ids"] == context).sum()) == 4 * 3


def test_text_of_a_sample_is_its_annotation_with_frames_and_boxes(
    shapes_entry: DatasetEntry, encoder: SampleEncoder
) -> None:
    dataset = dataset_of(shapes_entry, encoder, min_num_frame=2, max_num_frame=2)
    features, (sample,) = dataset[7], dataset.passes[7]
    first, second = (f"[[{', '.join(map(str, row))}]]" for row in features["vision"]["boxes"].tolist())
    text = encoder.tokenizer.decode(features["input_ids"])
    image = f"<img>{IMG_CONTEXT * 3}</img>"
    name = sample.object_name
    assert text.endswith(
        f"<|im_start|>user\nFrame-1: {image}\nFrame-2: {image}\nDescribe this video in one sentence, and focus on "
        f"{name} located in the coordinate list. The coordinates in each frame are:\n"
        f"1. <ref>{name}</ref><box>{first}</box>\n2. <ref>{name}</ref><box>{second}</box>\n.<|im_end|>\n"
        f"<|im_start|>assistant\n{sample.turns[1].text}<|im_end|>"
    )


def test_absent_style_is_that_of_the_prompt_config(own_entry: DatasetEntry, encoder: SampleEncoder) -> None:
    for path in own_entry.root.glob("*/*/*.npy"):
        save_boxes(path, np.zeros((24, 4), dtype=int))
    texts = []
    for style in ("absent", "zeros"):
        config = PromptConfig.of(**{**encoder.config.flags(), "absent_boxes": style})
        features = dataset_of(own_entry, SampleEncoder(encoder.tokenizer, config))[0]
        texts.append(encoder.tokenizer.decode(features["input_ids"]))
    assert "</ref>absent\n" in texts[0] and "[[0, 0, 0, 0]]" not in texts[0]
    assert "</ref><box>[[0, 0, 0, 0]]</box>\n" in texts[1] and "absent" not in texts[1]


def test_boxes_are_the_npy_rows_of_the_frames_shown(shapes_entry: DatasetEntry, encoder: SampleEncoder) -> None:
    dataset = dataset_of(shapes_entry, encoder)
    for index in (0, 13, 29):
        rows = load_boxes(dataset.passes[index][0].tracks[0].path)[frame_numbers_of(dataset, index)]
        assert dataset[index]["vision"]["boxes"].tolist() == rows.tolist()


def test_a_sample_repeats_itself_within_an_epoch(shapes_entry: DatasetEntry, encoder: SampleEncoder) -> None:
    first, second = dataset_of(shapes_entry, encoder), dataset_of(shapes_entry, encoder)
    second.set_epoch(3)
    _ = second[5]
    second.set_epoch(0)
    assert all(same(first[index], second[index]) for index in (4, 5, 4))


def test_another_epoch_or_seed_shows_other_frames(shapes_entry: DatasetEntry, encoder: SampleEncoder) -> None:
    dataset = dataset_of(shapes_entry, encoder, min_num_frame=5)
    now = frame_numbers_of(dataset, 2)
    dataset.set_epoch(1)
    assert frame_numbers_of(dataset, 2) != now
    assert frame_numbers_of(dataset_of(shapes_entry, encoder, min_num_frame=5, seed=12), 2) != now


def test_middle_sampling_shows_the_same_frames_in_every_epoch(
    shapes_entry: DatasetEntry, encoder: SampleEncoder
) -> None:
    dataset = dataset_of(shapes_entry, encoder, min_num_frame=3, max_num_frame=3, sampling_method="middle")
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        assert frame_numbers_of(dataset, 1) == [3, 11, 19]


def test_number_of_frames_takes_every_value_of_its_range(shapes_entry: DatasetEntry, encoder: SampleEncoder) -> None:
    dataset = dataset_of(shapes_entry, encoder)
    tiles = [size.tiles for size in dataset.sizes(epoch=0)]
    assert set(tiles) == {2, 3, 4, 5}
    assert [len(dataset[index]["vision"]["boxes"]) for index in range(4)] == tiles[:4]


@pytest.mark.parametrize(("low", "high"), [(0, 5), (6, 5)])
def test_an_impossible_range_of_frames_names_its_flags(
    low: int, high: int, shapes_entry: DatasetEntry, encoder: SampleEncoder
) -> None:
    with pytest.raises(UserError, match="--min_num_frame.*--max_num_frame"):
        dataset_of(shapes_entry, encoder, min_num_frame=low, max_num_frame=high)


def test_a_track_one_row_short_is_an_error_that_names_it(own_entry: DatasetEntry, encoder: SampleEncoder) -> None:
    dataset = dataset_of(own_entry, encoder)
    path = dataset.passes[0][0].tracks[0].path
    save_boxes(path, load_boxes(path)[:-1])
    with pytest.raises(UserError, match=f"{path}: has 23 boxes for the 24 frames"):
        dataset.load(0)


def test_a_missing_video_is_an_error_that_names_it(own_entry: DatasetEntry, encoder: SampleEncoder) -> None:
    dataset = dataset_of(own_entry, encoder)
    path = dataset.passes[0][0].video_path
    path.unlink()
    with pytest.raises(UserError, match=str(path)):
        dataset.load(0)


def test_a_sample_over_the_token_limit_names_line_and_flag(shapes_entry: DatasetEntry, encoder: SampleEncoder) -> None:
    limited = SampleEncoder(encoder.tokenizer, replace(encoder.config, max_seq_length=100))
    with pytest.raises(UserError, match=r"train.jsonl:3: .*over max_seq_length 100: show fewer frames"):
        dataset_of(shapes_entry, limited).load(2)


def test_a_sample_at_the_token_limit_passes(shapes_entry: DatasetEntry, encoder: SampleEncoder) -> None:
    # The limit counts the line break after the answer, which a pass leaves out.
    length = len(dataset_of(shapes_entry, encoder)[2]["input_ids"]) + 1
    limited = SampleEncoder(encoder.tokenizer, replace(encoder.config, max_seq_length=length))
    assert len(dataset_of(shapes_entry, limited)[2]["input_ids"]) == length - 1


@pytest.mark.parametrize(
    "turns",
    [
        (Turn("human", "no video here"), Turn("gpt", "yes")),
        (Turn("human", "<video> no break"), Turn("gpt", "yes")),
        (Turn("human", "<video>\n<image>\nwhat?"), Turn("gpt", "yes")),
        (Turn("system", "be brief"), Turn("human", "no video here"), Turn("gpt", "yes")),
        (Turn("gpt", "I begin"), Turn("human", "<video>\nwhat?")),
        (),
    ],
    ids=["no video", "no line break", "stray image", "no video after a system turn", "answer first", "no turns"],
)
def test_a_conversation_that_makes_no_prompt_names_its_line(
    turns: tuple[Turn, ...], shapes_entry: DatasetEntry, encoder: SampleEncoder
) -> None:
    sample = replace(read_samples(shapes_entry)[1], turns=turns)
    with pytest.raises(UserError, match=r"train.jsonl:2: "):
        encoder(sample, np.array([0, 9]))


def test_an_unknown_conversation_style_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="--conv_style 'vicuna'.*internvl2_5"):
        PromptConfig.of("vicuna", 28, 3)


def test_prompt_config_survives_saving(tmp_path: Path) -> None:
    config = PromptConfig.of("internvl2_5", 84, 9, absent_boxes="zeros", max_seq_length=777)
    config.save(tmp_path)
    assert PromptConfig.load(tmp_path) == config


@pytest.mark.parametrize(
    ("fewest", "most", "shown"),
    [(None, None, 32), (8, 48, 32), (6, 6, 6), (40, 64, 40), (None, 16, 16), (33, None, 32)],
)
def test_prediction_shows_what_training_showed(fewest: int | None, most: int | None, shown: int) -> None:
    known = {"min_num_frame": fewest, "max_num_frame": most}
    config = PromptConfig.of("internvl2_5", 84, 9, **{name: count for name, count in known.items() if count})
    assert config.num_frames == shown


def test_a_prompt_config_with_a_missing_field_is_named(tmp_path: Path) -> None:
    (tmp_path / "prompt_config.json").write_text('{"conv_style": "internvl2_5", "force_image_size": 84}')
    with pytest.raises(UserError, match="prompt_config.json"):
        PromptConfig.load(tmp_path)


@pytest.mark.parametrize("form", PROMPT_FORMS)
def test_the_red_box_is_drawn_for_questions_that_speak_of_it(
    form: str, shapes_entry: DatasetEntry, encoder: SampleEncoder
) -> None:
    sample = read_samples(shapes_entry)[0]
    sample = replace(sample, turns=(question_turn("<video>\n" + wording_named(form).asks(sample.object_name)),))
    plain = read_frames(sample.video_path, np.array([1, 8]))
    shown = encoder.pictures(sample, encoder.plan(sample, np.array([1, 8])))
    painted = draw_boxes(plain, load_boxes(sample.tracks[0].path)[[1, 8]])
    assert np.array_equal(shown, painted if "red" in wording_named(form).asks("") else plain)


def test_red_box_outlines_a_present_box_only() -> None:
    frames = np.full((3, 60, 100, 3), 40, dtype=np.uint8)
    boxes = np.array([[100, 200, 500, 700], [0, 0, 0, 0], [0, 0, 1000, 1000]])
    drawn = draw_boxes(frames, boxes)
    assert (frames == 40).all()
    assert np.array_equal(drawn[1], frames[1])
    rows, columns = np.nonzero((drawn[0] == (255, 0, 0)).all(-1))
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (10, 50, 12, 42)
    assert (drawn[0][15:40, 13:48] == 40).all()
    assert (drawn[2][:, [0, -1]] == (255, 0, 0)).all() and (drawn[2][[0, -1]] == (255, 0, 0)).all()


def test_transform_squashes_and_normalises() -> None:
    frames = np.zeros((2, 6, 9, 3), dtype=np.uint8)
    frames[0], frames[1] = (255, 0, 51), (10, 20, 30)
    tiles = TileTransform(4)(frames)
    assert tiles.shape == (2, 3, 4, 4) and tiles.dtype == torch.float32
    expected = (np.array([[255, 0, 51], [10, 20, 30]]) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    assert np.allclose(tiles[:, :, 1, 2].numpy(), expected, atol=1e-5)


def test_transform_equals_pillows_bicubic_resize() -> None:
    from PIL import Image

    frame = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    pixels = TileTransform(20)(frame[None])[0].permute(1, 2, 0).numpy() * IMAGENET_STD + IMAGENET_MEAN
    expected = np.asarray(Image.fromarray(frame).resize((20, 20), Image.Resampling.BICUBIC)) / 255
    assert np.abs(pixels - expected).max() < 1.5 / 255


@pytest.mark.parametrize("group_size", [None, 3])
def test_an_epoch_holds_every_sample_once_and_repeats_itself(
    group_size: int | None, shapes_entry: DatasetEntry, encoder: SampleEncoder
) -> None:
    sampler = EpochSampler(dataset_of(shapes_entry, encoder), group_size)
    first, again = list(sampler), list(sampler)
    sampler.set_epoch(1)
    later = list(sampler)
    assert first == again != later
    assert sorted(first) == sorted(later) == list(range(NUM_SAMPLES)) != first
    assert list(EpochSampler(dataset_of(shapes_entry, encoder, seed=12), group_size)) != first


@pytest.mark.parametrize("group_size", [None, 8])
def test_ranks_take_every_pass_once(group_size: int | None, shapes_entry: DatasetEntry, encoder: SampleEncoder) -> None:
    """Where passes do not go up in the ranks' batches, the loader would take the epoch's first ones again."""
    dataset = dataset_of(shapes_entry, encoder)
    ranks, batch = 2, 4
    assert len(dataset) % (ranks * batch) not in (0, ranks * batch - 1)
    sampler = EpochSampler(dataset, group_size, ranks * batch)
    batches = BatchSampler(sampler, batch, drop_last=False)
    taken = [list(BatchSamplerShard(batches, ranks, rank, even_batches=True)) for rank in range(ranks)]
    assert len(taken[0]) == len(taken[1]) == -(-len(dataset) // (ranks * batch))
    indices = [index for of_rank in taken for one in of_rank for index in one]
    assert sorted(index for index in indices if index != NO_PASS) == list(range(len(dataset)))
    collate = PackCollator({"pixel_values": torch.zeros(1)})
    alone, filled = collate([dataset[0]]), collate([dataset[0], dataset[NO_PASS]])
    assert alone["input_ids"].equal(filled["input_ids"]) and not filled["skipped"]
    assert collate([dataset[NO_PASS]])["loss_weights"].sum() == 0


def test_grouping_puts_similar_lengths_into_a_step(shapes_entry: DatasetEntry, encoder: SampleEncoder) -> None:
    dataset = dataset_of(replace(shapes_entry, repeat_time=4), encoder, max_num_frame=40)
    lengths = [size.tokens for size in dataset.sizes(epoch=0)]

    def spread(group_size: int | None) -> float:
        order = [lengths[i] for i in EpochSampler(dataset, group_size)]
        return float(np.mean([np.ptp(order[i : i + 3]) for i in range(0, len(order), 3)]))

    assert spread(3) < spread(None) / 4
