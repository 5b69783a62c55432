"""Samples of every kind as the model gets them: ids, labels, pixels and boxes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from internvl_chat.contracts import Features, TrackRows
from internvl_chat.data.prompts.encoder import SampleEncoder
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.data.records.reader import RecordReader
from internvl_chat.model.pixels import normalised
from tests.families import family_tokenizer
from tests.golden.frozen import OLD, check_frozen, digest

GEOMETRY = {"force_image_size": 28, "tokens_per_frame": 3}
# What the tensors of text alone were before they were left out.
NOTHING_SHOWN = {"pixel_values": torch.empty(0, 3, 28, 28), "boxes": torch.empty(0, 4)}
COORDINATES = "<video>\nDescribe this video in one sentence, and focus on cup located in the coordinate list."
RED_BOX = "<video>\nDescribe this video in one sentence, and focus on the cup in the red coordinate box."
RED_BOX_COORDINATES = f"{RED_BOX[:-1]}, whose coordinates at each frame are:"
NO_BOX = "<video>\nGive this video a description in one sentence."
OWN_WORDS = "<video>\nWhat happens to it?"

GROUNDING = "The <ref>cup</ref><box>[[100, 200, 300, 400]]</box> stands."
BY_FRAME = {"name": "cup", "boxes": {"0": [10, 20, 20, 24], "11": [30, 20, 20, 24]}, "unit": "pixels", "order": "xywh"}
BY_SECOND = {"name": "lid", "boxes": {"0": [0, 0, 0.5, 0.25], "1.5": [0.5, 0.5, 1, 1]}, "by": "second"}
BY_SECOND |= {"unit": "unit", "order": "xyxy"}
ABSENT = {"name": "dog", "boxes": [[100, 200, 500, 700]] * 23, "absent": [*range(4, 19)], "unit": "thousandths"}
ABSENT |= {"order": "xyxy"}
ON_IMAGE = {"name": "cup", "boxes": [[12, 10, 60, 30]], "unit": "pixels", "order": "xyxy"}
ON_IMAGES = {"name": "cup", "boxes": {"1": [100, 50, 800, 650]}, "unit": "thousandths", "order": "xyxy"}
BOXED = {"video": "cup-1/cup-1.mp4"}
POOL = {"video": "pool/pool-3/pool-3.mp4"}
TILED = {"dynamic_image_size": True, "max_dynamic_patch": 5}


@dataclass(frozen=True)
class Case:
    """A record by its question and fields, the prompt settings, and how it is read and sampled."""

    question: str
    fields: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    answer: str | None = "a cup"
    reader: dict[str, Any] = field(default_factory=dict)
    num_frames: int = 4
    method: str = "middle"
    system: str | None = None
    is_always: bool = False


CASES = {
    "text": Case("What is 2 + 2?", answer="4"),
    "text, with a system message": Case("Why?", system="Be brief."),
    "text, a prompt": Case("What is 2 + 2?", answer=None),
    "image": Case("<image>\nwhat?", {"image": "wide.png"}),
    "image, without its placeholder": Case("what?", {"image": "tall.png"}),
    "image, padded": Case("what?", {"image": "wide.png"}, {"pad2square": True}),
    "image, pixels as clip's": Case("what?", {"image": "tall.png"}, {"normalize_type": "clip"}),
    "image, pixels as siglip's": Case("what?", {"image": "tall.png"}, {"normalize_type": "siglip"}),
    "image, tiled": Case("what?", {"image": "wide.png"}, TILED),
    "image, tiled, with a thumbnail": Case("what?", {"image": "wide.png"}, {**TILED, "use_thumbnail": True}),
    "image, tiled as its entry says": Case("what?", {"image": "wide.png"}, TILED, reader={"max_dynamic_patch": 2}),
    "image, with a track": Case("what?", {"image": "wide.png", "tracks": [ON_IMAGE]}),
    "image, tiled, with a track": Case("what?", {"image": "wide.png", "tracks": [ON_IMAGE]}, TILED),
    "image, with a track, listed and drawn": Case(
        "what?", {"image": "wide.png", "tracks": [ON_IMAGE]}, {"coordinates": "on", "red_box": "on"}
    ),
    "image, with a track, cropped": Case(
        "what?", {"image": "wide.png", "tracks": [ON_IMAGE], "width": 120, "height": 40}, {"crop_frames": 1}
    ),
    "image, grounding": Case("<image>\nWhere is the <ref>cup</ref>?", {"image": "plain.png"}, answer=GROUNDING),
    "image, grounding, augmented": Case(
        "<image>\nWhere?", {"image": "plain.png"}, answer=GROUNDING, reader={"data_augment": True}
    ),
    "images": Case("Image-1: <image>\nImage-2: <image>\nSame?", {"image": ["tall.png", "plain.png"]}),
    "images, tiled": Case("<image>\n<image>\nSame?", {"image": ["wide.png", "tall.png"]}, TILED),
    "images, with a track": Case(
        "<image>\n<image>\nSame?", {"image": ["tall.png", "plain.png"], "tracks": [ON_IMAGES]}, {"coordinates": "on"}
    ),
    "video, no box": Case(OWN_WORDS, {"video": "moving.gif"}),
    "video, a clip at a rate": Case(OWN_WORDS, {"video": "moving.gif", "clip": [0.1, 0.5]}, method="fps5"),
    "folder of frames": Case(OWN_WORDS, {"video": "frames"}, num_frames=3, method="rand"),
    "folder of frames, with a track": Case(
        COORDINATES, {"video": "frames", "tracks": [{**BY_FRAME, "boxes": {"3": [6, 4, 12, 10]}}]}, method="centre"
    ),
    "coordinates": Case(COORDINATES, BOXED, num_frames=5),
    "coordinates, a prompt": Case(COORDINATES, BOXED, answer=None),
    "coordinates, other name": Case(COORDINATES.replace("cup", "pool ball"), POOL, method="rand"),
    "coordinates, zeros where absent": Case(COORDINATES, BOXED, {"absent_boxes": "zeros"}, num_frames=5),
    "coordinates, own word where absent": Case(COORDINATES, BOXED, {"absent_boxes": "not seen"}, num_frames=5),
    "coordinates, percent": Case(COORDINATES, BOXED, {"coordinate_unit": "percent"}),
    "coordinates, unit": Case(COORDINATES, BOXED, {"coordinate_unit": "unit", "frame_label": "Frame1"}),
    "coordinates, decimals and stride": Case(
        COORDINATES, BOXED, {"coordinate_unit": "percent", "coordinate_decimals": 0, "coordinate_stride": 3}
    ),
    "coordinates, off": Case(COORDINATES, BOXED, {"coordinates": "off"}),
    "coordinates, no adapter": Case(COORDINATES, BOXED, {"box_adapter": False}),
    "red box": Case(RED_BOX, BOXED),
    "red box, blue and wide": Case(RED_BOX, BOXED, {"red_box_colour": "#1020f0", "red_box_width_px": 5}),
    "red box, off": Case(RED_BOX, BOXED, {"red_box": "off"}),
    "red box and coordinates": Case(RED_BOX_COORDINATES, BOXED),
    "neither": Case(NO_BOX, BOXED),
    "neither, all switched on": Case(NO_BOX, BOXED, {"coordinates": "on", "red_box": "on", "crop_frames": 1}),
    "crops": Case(COORDINATES, BOXED, {"crop_frames": 2, "crop_margin": 0.5}, num_frames=5),
    "own words, all switched on": Case(OWN_WORDS, BOXED, {"coordinates": "on", "red_box": "on", "crop_frames": 2}),
    "augmented video": Case(RED_BOX, BOXED, reader={"data_augment": True}),
    "tracks of several objects": Case(COORDINATES, {**POOL, "tracks": [BY_FRAME, BY_SECOND, ABSENT]}, num_frames=6),
    "tracks of several objects, drawn": Case(RED_BOX, {**POOL, "tracks": [BY_SECOND, ABSENT]}, num_frames=6),
    "track that always holds": Case(COORDINATES, BOXED, is_always=True),
    "template internlm2-chat": Case(COORDINATES, BOXED, {"conv_style": "internlm2-chat"}, system=" Be brief. "),
    "template Hermes-2": Case(COORDINATES, BOXED, {"conv_style": "Hermes-2"}),
    "template phi3-chat": Case(COORDINATES, BOXED, {"conv_style": "phi3-chat"}),
    "template phi3-chat, a prompt": Case(COORDINATES, BOXED, {"conv_style": "phi3-chat"}, answer=None),
}
BEGIN_WITH_BOS = ("internlm2-chat", "phi3-chat")


def encoded(case: Case, config: PromptConfig, root: Path) -> Features:
    turns = [{"from": "system", "value": case.system}] if case.system else []
    turns.append({"from": "human", "value": case.question})
    if case.answer is not None:
        turns.append({"from": "gpt", "value": case.answer})
    record = {"id": 1, "conversations": turns, **case.fields}
    sample = RecordReader(root, **case.reader).read(record, "a.jsonl:1")
    if case.is_always:
        track = TrackRows("cup", np.zeros(1), np.array([[0.2, 0.3, 0.6, 0.8]]), by="always")
        sample = replace(sample, tracks=(track,))
    encoder = SampleEncoder(family_tokenizer(config.conv_style in BEGIN_WITH_BOS), config)
    rng = np.random.default_rng(8)
    return encoder(sample, encoder.choose_frames(sample, case.num_frames, case.method, rng), rng)


def lines_of(name: str, features: Features) -> list[str]:
    """What is frozen of a sample; lengths and boxes are written out, so that a change can be read."""
    ids, labels, vision = features["input_ids"], features["labels"], features["vision"] or NOTHING_SHOWN
    pixels = normalised(vision, torch.float32)["pixel_values"]
    # In thousandths, so that the last bit of a division does not count.
    rounded = (pixels * 1000).round().to(torch.int32)
    mean = f"{pixels.double().mean():.3f}" if len(pixels) else "none"
    return [
        f"{name}:",
        f"  ids     {len(ids)} {digest(ids.numpy().tobytes())}",
        f"  labels  {int((labels != -100).sum())} learned {digest(labels.numpy().tobytes())}",
        f"  pixels  {list(pixels.shape)} mean {mean} {digest(rounded.numpy().tobytes())}",
        f"  boxes   {vision['boxes'].tolist()}",
    ]


def test_samples_are_encoded_as_ever(media: Path) -> None:
    lines = []
    for name, case in CASES.items():
        config = PromptConfig.of(**{"conv_style": "internvl2_5", **GEOMETRY, **case.settings})
        lines += lines_of(name, encoded(case, config, media))
    check_frozen("samples.txt", "\n".join(lines) + "\n")


def test_old_prompt_settings_ask_as_ever(media: Path, tmp_path: Path) -> None:
    config = PromptConfig.load(OLD)
    config.save(tmp_path)
    assert PromptConfig.load(tmp_path) == config

    cases = {"video": Case(OWN_WORDS, BOXED), "image": Case("what?", {"image": "wide.png", "tracks": [ON_IMAGE]})}
    lines = [line for name, case in cases.items() for line in lines_of(name, encoded(case, config, media))]
    check_frozen("old_prompt_config.txt", "\n".join([*lines, f"frames of a video: {config.num_frames}"]) + "\n")
