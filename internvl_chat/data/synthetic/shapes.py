"""A small IntentVC-shaped dataset whose truth is known: shapes that move, one of them named by the box.

Every clip holds two or three objects that differ in colour and each move in their own way. Two entries of the dataset
share a clip and differ in nothing but the box, so a caption can only be right if it follows the box. Half of the clips
pair two objects of the same category (shape).
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from internvl_chat.data.records.intentvc import REFERENCES_NAME
from internvl_chat.processes import worker_pool

COLOURS = {
    "red": (225, 45, 40),
    "green": (45, 190, 70),
    "blue": (50, 95, 235),
    "yellow": (240, 215, 50),
    "pink": (240, 110, 200),
    "white": (240, 240, 240),
}
SHAPES = ("circle", "square", "triangle", "cross")
# Direction of motion in pixels per frame of travel, y downwards.
MOTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}

WIDTH_PX, HEIGHT_PX, NUM_FRAMES, FPS = 192, 144, 24, 12

_TEMPLATES_MOVING = (
    "a {colour} {shape} moves {motion}",
    "the {colour} {shape} is moving {motion}",
    "a {colour} {shape} slides {motion}",
    "the {colour} {shape} travels {motion}",
    "a {colour} {shape} glides {motion} over the dark ground",
)
_TEMPLATES_STILL = (
    "a {colour} {shape} stays still",
    "the {colour} {shape} is staying still",
    "a {colour} {shape} rests in place",
    "the {colour} {shape} does not move",
    "a {colour} {shape} keeps its place on the dark ground",
)


@dataclass(frozen=True)
class MovingShape:
    """One object of a clip: what it looks like and where it is.

    `boxes_px` is [T, 4], x y w h in pixels of the clip, float.
    """

    colour: str
    shape: str
    motion: str
    boxes_px: np.ndarray

    def captions(self) -> list[str]:
        """The five reference captions of this object."""
        templates = _TEMPLATES_STILL if self.motion == "still" else _TEMPLATES_MOVING
        return [t.format(colour=self.colour, shape=self.shape, motion=self.motion) for t in templates]


@dataclass(frozen=True)
class Clip:
    """Objects over a background; the first two are the clip's targets. Later objects are drawn over earlier ones."""

    objects: tuple[MovingShape, ...]
    background_seed: int

    @cached_property
    def _ground(self) -> Image.Image:
        corner_values = np.random.default_rng(self.background_seed).integers(15, 70, size=(2, 2, 3)).astype(np.uint8)
        return Image.fromarray(corner_values).resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.BILINEAR)

    def frame(self, t: int) -> np.ndarray:
        """Frame `t` as [H, W, 3] uint8, RGB, with a little noise."""
        image = self._ground.copy()
        draw = ImageDraw.Draw(image)
        for item in self.objects:
            _draw(draw, item.shape, COLOURS[item.colour], item.boxes_px[t])
        rng = np.random.default_rng([self.background_seed, t])
        # The brightest colour and the noise stay below 255 together, so that the sum cannot wrap around.
        return np.asarray(image) + rng.integers(0, 13, size=(HEIGHT_PX, WIDTH_PX, 1), dtype=np.uint8)


def _draw(draw: ImageDraw.ImageDraw, shape: str, colour: tuple[int, int, int], box_xywh: np.ndarray) -> None:
    x, y, w, h = (float(v) for v in box_xywh)
    if shape == "circle":
        draw.ellipse((x, y, x + w, y + h), fill=colour)
    elif shape == "square":
        draw.rectangle((x, y, x + w, y + h), fill=colour)
    elif shape == "triangle":
        draw.polygon([(x + w / 2, y), (x, y + h), (x + w, y + h)], fill=colour)
    elif shape == "cross":
        draw.rectangle((x + w * 0.34, y, x + w * 0.66, y + h), fill=colour)
        draw.rectangle((x, y + h * 0.34, x + w, y + h * 0.66), fill=colour)
    else:
        raise ValueError(f"unknown shape {shape!r}: expected one of {SHAPES}")


def _path(rng: np.random.Generator, motion: str, size_px: float) -> np.ndarray:
    """A straight path with the whole object inside the picture, [T, 4] x y w h."""
    dx, dy = MOTIONS[motion]
    travel = rng.uniform(0.45, 0.85) * np.array([dx * (WIDTH_PX - size_px), dy * (HEIGHT_PX - size_px)])
    room = np.array([WIDTH_PX - size_px, HEIGHT_PX - size_px]) - np.abs(travel)
    start = rng.uniform(0, 1, 2) * room + np.maximum(-travel, 0)
    steps = np.linspace(0, 1, NUM_FRAMES)[:, None]
    corners = start + steps * travel
    return np.concatenate([corners, np.full_like(corners, size_px)], axis=1)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Largest share of the smaller object's box that the other covers in any frame."""
    low = np.maximum(a[:, :2], b[:, :2])
    high = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    smaller = np.minimum(np.prod(a[:, 2:], axis=1), np.prod(b[:, 2:], axis=1))
    return float((shared / smaller).max())


def sample_clip(rng: np.random.Generator, same_category: bool | None = None) -> Clip:
    """Draw a clip: two targets and, half of the time, a third object; colours and motions all differ.

    Args:
        same_category: whether the two targets share their shape; None draws it with probability one half.
    """
    if same_category is None:
        same_category = bool(rng.random() < 0.5)
    num_objects = 2 + int(rng.random() < 0.5)
    while True:
        shapes = [str(s) for s in rng.permutation(SHAPES)[:num_objects]]
        if same_category:
            shapes[1] = shapes[0]
        colours = rng.permutation(list(COLOURS))[:num_objects]
        motions = rng.permutation(list(MOTIONS))[:num_objects]
        paths = [_path(rng, str(m), float(rng.uniform(34, 44))) for m in motions]
        crowded = any(_overlap(paths[i], paths[j]) > 0.1 for i in range(num_objects) for j in range(i))
        if not crowded:
            break
    objects = tuple(
        MovingShape(str(c), s, str(m), p) for c, s, m, p in zip(colours, shapes, motions, paths, strict=True)
    )
    return Clip(objects, background_seed=int(rng.integers(2**31)))


def write_video(path: Path, clip: Clip) -> None:
    """Write a clip as MP4."""
    import av

    with av.open(str(path), "w") as container:
        # By default x264's fast paths give other bytes from run to run, and from one processor to another.
        stream = container.add_stream(
            "libx264",
            rate=Fraction(FPS),
            options={"preset": "veryfast", "crf": "18", "threads": "1", "x264-params": "cpu-independent=1"},
        )
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for t in range(NUM_FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(clip.frame(t), format="rgb24")))
        container.mux(stream.encode())


def _track_lines(item: MovingShape, rng: np.random.Generator, absent_share: float) -> str:
    """The object's `object_bboxes.txt`; some tracks lose the object for a few frames, as a real tracker does."""
    boxes = np.rint(item.boxes_px).astype(int)
    if rng.random() < absent_share:
        length = int(rng.integers(3, 7))
        first = int(rng.integers(0, NUM_FRAMES - length + 1))
        boxes[first : first + length] = 0
    return "".join(",".join(str(v) for v in row) + "\n" for row in boxes)


@dataclass(frozen=True)
class _ClipJob:
    folder: Path
    seed: tuple[int, ...]
    clip: Clip
    ids: tuple[str, str]
    absent_share: float


def _write_clip(job: _ClipJob) -> None:
    rng = np.random.default_rng(job.seed)
    first_video: Path | None = None
    for video_id, item in zip(job.ids, job.clip.objects, strict=False):
        target_dir = job.folder / video_id.split("-")[0] / video_id
        target_dir.mkdir(parents=True, exist_ok=True)
        video_path = target_dir / f"{video_id}.mp4"
        if first_video is None:
            write_video(video_path, job.clip)
            first_video = video_path
        else:
            shutil.copyfile(first_video, video_path)
        (target_dir / "object_bboxes.txt").write_text(_track_lines(item, rng, job.absent_share))


def write_dataset(
    folder: Path, *, train_clips: int, public_clips: int, private_clips: int, seed: int = 0, absent_share: float = 0.1
) -> dict[str, int]:
    """Write the dataset in the layout of the IntentVC challenge.

    Beside the challenge's own files (`train.json`, `sample_result_public.json`, `sample_result_private.json`) it holds
    what only a synthetic set can know: `references_test.json` (captions of the test ids) and `other_target.json`
    (id -> id of the same clip with the other object's box).

    Args:
        folder: must be new or empty.
        train_clips, public_clips, private_clips: clips in each part; a clip gives two ids.
        absent_share: share of tracks that lose their object for three to six frames.
    Returns:
        Number of ids in each part.
    Raises:
        FileExistsError: `folder` is not empty.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: give a new folder, or remove this one first")
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    counters = dict.fromkeys(SHAPES, 0)
    captions: dict[str, dict[str, list[str]]] = {"train": {}, "public": {}, "private": {}}
    other_target: dict[str, str] = {}
    jobs: list[_ClipJob] = []
    for part, count in (("train", train_clips), ("public", public_clips), ("private", private_clips)):
        for index in range(count):
            clip = sample_clip(rng, same_category=index % 2 == 0)
            ids = []
            for item in clip.objects[:2]:
                counters[item.shape] += 1
                ids.append(f"{item.shape}-{counters[item.shape]}")
                captions[part][ids[-1]] = item.captions()
            other_target.update({ids[0]: ids[1], ids[1]: ids[0]})
            jobs.append(_ClipJob(folder, (seed, len(jobs)), clip, (ids[0], ids[1]), absent_share))
    with worker_pool(os.cpu_count()) as pool:
        list(pool.map(_write_clip, jobs, chunksize=8))

    version = f"moving shapes, seed {seed}"
    files: dict[str, object] = {
        "train.json": {"version": version, "captions": captions["train"]},
        REFERENCES_NAME: {"version": version, "captions": captions["public"] | captions["private"]},
        "other_target.json": other_target,
    }
    for part in ("public", "private"):
        files[f"sample_result_{part}.json"] = {"version": version, "captions": dict.fromkeys(captions[part], "")}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")
    return {part: len(entries) for part, entries in captions.items()}
