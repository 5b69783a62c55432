"""Synthetic videos to time decoding on: a texture that drifts, with a square moving over it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

WIDTH_PX, HEIGHT_PX = 1280, 720
# How far the texture drifts: a clip has about as many bytes, and frames that nothing refers to, as real ones have.
_DRIFT_X_PX, _DRIFT_Y_PX = 200, 100


def _texture() -> Image.Image:
    """Noise at four scales, larger than a frame."""
    rng = np.random.default_rng(0)
    size = (WIDTH_PX + 2 * _DRIFT_X_PX, HEIGHT_PX + 2 * _DRIFT_Y_PX)
    total = np.full((size[1], size[0], 3), 128.0)
    for scale, strength in ((64, 60), (16, 30), (4, 20), (1, 6)):
        for channel in range(3):
            noise = rng.normal(size=(size[1] // scale + 2, size[0] // scale + 2)).astype(np.float32)
            total[..., channel] += strength * np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC))
    return Image.fromarray(np.clip(total, 0, 255).astype(np.uint8))


def write_clip(path: Path, num_frames: int, key_frame_every: int = 250) -> None:
    """1280 x 720, 30 frames a second, H.264 as x264's preset `veryfast` makes it."""
    texture = np.asarray(_texture())
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "g": str(key_frame_every)}
        stream = container.add_stream("libx264", rate=Fraction(30), options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for t in range(num_frames):
            x, y = int(_DRIFT_X_PX * (1 + np.sin(t / 40))), int(_DRIFT_Y_PX * (1 + np.sin(1 + t / 63)))
            picture = texture[y : y + HEIGHT_PX, x : x + WIDTH_PX].copy()
            left = (5 * t) % (WIDTH_PX - 150)
            picture[300:450, left : left + 150] = (230, 40, 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
