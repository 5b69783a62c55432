"""A mix of every record kind as a training set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from internvl_chat.contracts import PackedFeatures
from internvl_chat.data.families import internvl
from internvl_chat.data.prompts.encoder import PromptConfig, SampleEncoder
from internvl_chat.data.records.annotations import load_meta, read_mix
from internvl_chat.data.training_set.collator import PackCollator
from internvl_chat.data.training_set.dataset import CaptionDataset

TRACK = {"name": "dog", "boxes": {"0": [1, 2, 300, 400]}, "unit": "thousandths", "order": "xyxy", "by": "second"}
KINDS = {
    "text": ({}, "why?"),
    "image": ({"image": "wide.png"}, "<image>\nwhat?"),
    "boxed": ({"image": "tall.jpg", "tracks": [{**TRACK, "by": "frame"}]}, "<image>\nwhat?"),
    "images": ({"image": ["wide.png", "tall.jpg"]}, "<image> or <image>?"),
    "video": ({"video": "clip.gif"}, "<video>\nwhat?"),
    "folder": ({"video": "frames"}, "<video>\nwhat?"),
    "tracked": ({"video": "clip.mp4", "tracks": [TRACK]}, "<video>\nwhat?"),
}


@pytest.fixture
def dataset(media_root: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> CaptionDataset:
    entries = {}
    for kind, (media, question) in KINDS.items():
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": f"this is {kind}"}]
        (tmp_path / f"{kind}.jsonl").write_text(json.dumps({"id": kind, **media, "conversations": turns}))
        entries[kind] = {"root": str(media_root), "annotation": f"{kind}.jsonl", "data_augment": kind != "text"}
    (tmp_path / "meta.json").write_text(json.dumps(entries))
    config = PromptConfig.of(
        "internvl2_5", 28, 3, dynamic_image_size=True, max_dynamic_patch=4, use_thumbnail=True, coordinates="on"
    )
    samples = read_mix(load_meta(tmp_path / "meta.json"))
    return CaptionDataset(samples, SampleEncoder(tokenizer, config), min_num_frame=2, max_num_frame=3, seed=1)


def num_tiles(item: PackedFeatures) -> int:
    return len(item["vision"].get("boxes", ()))


def test_sizes_are_known_before_anything_is_decoded(dataset: CaptionDataset) -> None:
    items = [dataset[index] for index in range(len(dataset))]
    sizes = [(size.tokens, size.tiles) for size in dataset.sizes(epoch=0)]
    assert sizes == [(len(item["input_ids"]), num_tiles(item)) for item in items]
    assert [tiles for _, tiles in sizes][:4] == [0, 4, 3, 6]
    assert [bool(item["vision"] and item["vision"]["boxes"].any()) for item in items] == [
        kind in ("boxed", "tracked") for kind in KINDS
    ]


def test_a_sample_repeats_itself_with_its_augmentation(dataset: CaptionDataset) -> None:
    for index in range(1, len(dataset)):
        first, second = (dataset[index]["vision"]["pixel_values"] for _ in range(2))
        assert torch.equal(first, second)
    first = dataset[1]["vision"]["pixel_values"]
    dataset.set_epoch(1)
    assert not torch.equal(dataset[1]["vision"]["pixel_values"], first)


def test_all_kinds_share_a_row(dataset: CaptionDataset) -> None:
    items = [dataset[index] for index in range(len(dataset))]
    collate = PackCollator(internvl.blank(dataset.encoder.config))
    shown = collate(items)["vision"]
    assert len(shown["pixel_values"]) == len(shown["boxes"]) == sum(map(num_tiles, items))
    text_alone = collate(items[:1])
    assert text_alone["vision"]["pixel_values"].shape == (1, 3, 28, 28) and not text_alone["vision"]["boxes"].any()
