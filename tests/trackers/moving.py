"""Videos of textured squares that move over a textured ground, and where they are."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

WIDTH_PX, HEIGHT_PX, NUM_FRAMES = 160, 120, 22
# Left and top on frame 0, steps a frame, width and height, colour.
OBJECTS = (((20, 10), (2, 1), (26, 30), (230, 60, 40)), ((110, 90), (-2, 0), (32, 24), (40, 90, 220)))


def boxes_px(number: int) -> npt.NDArray[np.float64]:
    """x y w h [4] of one object on each frame, [T, 4]."""
    (x, y), (dx, dy), size, _ = OBJECTS[number]
    times = np.arange(NUM_FRAMES)[:, None]
    return np.concatenate([np.array([x, y]) + times * [dx, dy], np.tile(size, (NUM_FRAMES, 1))], axis=1).astype(float)


def frames(hidden_from: int | None = None) -> npt.NDArray[np.uint8]:
    """[T, H, W, 3] uint8; the first object is gone from frame `hidden_from` on."""
    rng = np.random.default_rng(1)
    ground = np.repeat(np.repeat(rng.integers(90, 140, (30, 40, 3)), 4, axis=0), 4, axis=1)
    marks = [rng.integers(-30, 30, (30, 32, 1)) for _ in OBJECTS]
    shown = np.tile(ground.astype(np.uint8), (NUM_FRAMES, 1, 1, 1))
    for number, (_, _, (w, h), colour) in enumerate(OBJECTS):
        for t, (x, y) in enumerate(boxes_px(number)[:, :2].astype(int)):
            if number == 0 and hidden_from is not None and t >= hidden_from:
                continue
            shown[t, y : y + h, x : x + w] = np.clip(np.array(colour) + marks[number][:h, :w], 0, 255)
    return shown


def write_video(path: Path, hidden_from: int | None = None) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25), options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames(hidden_from):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def ious(a: npt.NDArray, b: npt.NDArray) -> npt.NDArray[np.float64]:
    """Intersection over union of boxes x y w h, [T, 4] each."""
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=1)
    return common / (np.prod(a[:, 2:], axis=1) + np.prod(b[:, 2:], axis=1) - common)
