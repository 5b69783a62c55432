"""A small detection set: still pictures of one or two coloured shapes, as InternVL's grounding records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from internvl_chat.boxes import thousandths_from_pixels
from internvl_chat.constants import IMAGE_PLACEHOLDER, REF_END, REF_START
from internvl_chat.data.synthetic.shapes import COLOURS, HEIGHT_PX, SHAPES, WIDTH_PX, Clip, MovingShape
from internvl_chat.files import write_json, write_jsonl
from internvl_chat.grounding import box_text

QUESTION = "Detect every object."
# Shapes that fill a few of the 4 x 4 places that the tiny base's picture has in the text.
SIZES_PX = (44.0, 76.0)


def draw_still(rng: np.random.Generator) -> Clip:
    """One or two shapes of different colours whose boxes do not touch, as a clip of a single frame."""
    num_objects = int(rng.integers(1, 3))
    while True:
        sizes = np.repeat(rng.uniform(*SIZES_PX, num_objects)[:, None], 2, axis=1)
        corners = rng.uniform(0, 1, (num_objects, 2)) * ([WIDTH_PX, HEIGHT_PX] - sizes)
        apart = np.abs((corners + sizes / 2)[0] - (corners + sizes / 2)[-1]) > (sizes[0] + sizes[-1]) / 2
        if num_objects == 1 or apart.any():
            break
    colours, shapes = rng.permutation(list(COLOURS)), rng.choice(SHAPES, num_objects)
    boxes_px = np.concatenate([corners, sizes], axis=1)
    items = zip(colours, shapes, boxes_px, strict=False)
    objects = tuple(MovingShape(str(colour), str(shape), "still", box[None]) for colour, shape, box in items)
    return Clip(objects, background_seed=int(rng.integers(2**31)))


def detection_of(still: Clip) -> str:
    """Every shape with its box, from left to right."""
    boxes_px = np.concatenate([item.boxes_px for item in still.objects])
    boxes = thousandths_from_pixels(boxes_px, WIDTH_PX, HEIGHT_PX).tolist()
    found = sorted(zip(boxes, (f"{item.colour} {item.shape}" for item in still.objects), strict=True))
    return "\n".join(f"{REF_START}{label}{REF_END}{box_text([box])}" for box, label in found)


def write_stills(folder: Path, train: int, val: int, seed: int = 0) -> Path:
    """Write images/, train.jsonl and val.jsonl, and a meta JSON to train on.

    Args:
        train, val: numbers of pictures; a picture depends on the seed and its number alone.
    Returns:
        The meta JSON.
    """
    (folder / "images").mkdir(parents=True)

    def records(numbers: range) -> Iterator[dict[str, Any]]:
        for number in numbers:
            still = draw_still(np.random.default_rng([seed, number]))
            file = f"images/{number:05d}.png"
            Image.fromarray(still.frame(0)).save(folder / file, compress_level=1)
            turns = [
                {"from": "human", "value": f"{IMAGE_PLACEHOLDER}\n{QUESTION}"},
                {"from": "gpt", "value": detection_of(still)},
            ]
            yield {"id": number, "image": file, "width": WIDTH_PX, "height": HEIGHT_PX, "conversations": turns}

    write_jsonl(folder / "val.jsonl", records(range(val)))
    write_jsonl(folder / "train.jsonl", records(range(val, val + train)))
    write_json(folder / "meta.json", {"stills": {"root": str(folder), "annotation": str(folder / "train.jsonl")}})
    return folder / "meta.json"
