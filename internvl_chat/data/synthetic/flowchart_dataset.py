"""Flowchart pictures written as a detection dataset: InternVL's JSONL and COCO's JSON, split into two parts.

DIR/images/00000.png ...   train.jsonl  val.jsonl   train_coco.json  val_coco.json   meta.json
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from internvl_chat.boxes import is_absent, thousandths_from_pixels
from internvl_chat.constants import IMAGE_PLACEHOLDER
from internvl_chat.contracts import UserError
from internvl_chat.data.records.meta_files import write_meta
from internvl_chat.data.synthetic.flowchart import CATEGORY_IDS, FlowchartStyle, draw_flowchart
from internvl_chat.files import begin_folder, replacing, write_json, write_jsonl
from internvl_chat.grounding import DETECTION_QUESTION, LabelledBox, detection_answer
from internvl_chat.processes import worker_pool

PARTS = ("train", "val")


@dataclass(frozen=True)
class Page:
    """A picture that was written: its number, file, size, and objects as label and box x y w h in pixels."""

    number: int
    file: str
    width: int
    height: int
    objects: tuple[tuple[str, tuple[int, int, int, int]], ...]

    def labelled_boxes(self) -> list[LabelledBox]:
        """The objects in thousandths, label by label and within a label in reading order.

        On a large page the head of an arrow can be less than a thousandth wide; it is left out.
        """
        ordered = sorted(self.objects, key=lambda item: list(CATEGORY_IDS).index(item[0]))
        boxes = thousandths_from_pixels(np.array([box for _, box in ordered]), self.width, self.height)
        items = zip(ordered, boxes, strict=True)
        return [LabelledBox(label, tuple(box.tolist())) for (label, _), box in items if not is_absent(box)]

    def record(self) -> dict[str, Any]:
        """One line of InternVL's JSONL."""
        return {
            "id": self.number,
            "image": self.file,
            "width": self.width,
            "height": self.height,
            "conversations": [
                {"from": "human", "value": f"{IMAGE_PLACEHOLDER}\n{DETECTION_QUESTION}"},
                {"from": "gpt", "value": detection_answer(self.labelled_boxes())},
            ],
        }


@dataclass(frozen=True)
class _PageJob:
    folder: Path
    style: FlowchartStyle
    seed: int
    number: int


def _write_page(job: _PageJob) -> Page:
    chart = draw_flowchart(np.random.default_rng([job.seed, job.number]), job.style)
    file = f"images/{job.number:05d}.png"
    if not (job.folder / file).exists():
        with replacing(job.folder / file) as half_done:
            # Every pixel is black or white, and a bit each is written in half the time.
            chart.page.convert("1", dither=Image.Dither.NONE).save(half_done, format="png")
    return Page(job.number, file, *chart.page.size, chart.objects)


def coco_annotations(pages: Iterable[Page]) -> dict[str, Any]:
    """What COCO calls `instances`: images, annotations with `bbox` x y w h in pixels, and categories."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for page in pages:
        images.append({"id": page.number, "file_name": page.file, "width": page.width, "height": page.height})
        for label, box in page.objects:
            place = {"bbox": list(box), "area": box[2] * box[3], "iscrowd": 0}
            ids = {"id": len(annotations) + 1, "image_id": page.number, "category_id": CATEGORY_IDS[label]}
            annotations.append({**ids, **place})
    categories = [{"id": number, "name": label} for label, number in CATEGORY_IDS.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_flowcharts(
    folder: Path, style: FlowchartStyle, *, images: int, val_fraction: float, seed: int
) -> dict[str, list[Page]]:
    """Write the dataset; a picture depends on its number, the seed and the style, and on nothing else.

    Args:
        folder: new or empty, or one that the same call was cut off in: what is there is kept.
        val_fraction: share of the pictures, the last ones, that is held out.
    Returns:
        The pages of each part, `train` and `val`.
    Raises:
        UserError: `folder` holds something else or was begun with other settings, or nothing is left to train on.
    """
    if not 0 <= val_fraction < 1 or round(images * val_fraction) == images:
        raise UserError(f"val_fraction {val_fraction} of {images} images leaves none to train on")
    num_val = round(images * val_fraction)
    settings = {"style": asdict(style), "images": images, "val_fraction": val_fraction, "seed": seed}
    begin_folder(folder, settings)
    jobs = [_PageJob(folder, style, seed, number) for number in range(images)]
    with worker_pool(os.cpu_count()) as pool:
        pages = list(pool.map(_write_page, jobs, chunksize=16))
    parts: dict[str, Sequence[Page]] = {"train": pages[: images - num_val], "val": pages[images - num_val :]}
    for part, chosen in parts.items():
        write_jsonl(folder / f"{part}.jsonl", (page.record() for page in chosen))
        write_json(folder / f"{part}_coco.json", coco_annotations(chosen))
    settings = {"data_augment": False, "repeat_time": 1, "length": images - num_val}
    write_meta(folder / "meta.json", "flowcharts", folder, folder / "train.jsonl", **settings)
    return {part: list(chosen) for part, chosen in parts.items()}
