"""Small videos of every kind of stream that decoding can go wrong on."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

WIDTH_PX, HEIGHT_PX = 112, 80


def write_clip(path: Path, num_frames: int, codec: str = "libx264", options: dict[str, str] | None = None) -> Path:
    """A texture that drifts under a moving square, no two frames alike."""
    texture = np.random.default_rng(3).integers(0, 256, (HEIGHT_PX + 60, WIDTH_PX + 60, 3)).astype(np.uint8)
    texture = np.repeat(np.repeat(texture[::4, ::4], 4, axis=0), 4, axis=1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(25), options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        stream.codec_context.thread_count = 1
        for t in range(num_frames):
            x, y = (t * 2) % 50, (t // 2) % 50
            picture = texture[y : y + HEIGHT_PX, x : x + WIDTH_PX].copy()
            picture[20:35, t % 90 : t % 90 + 12] = (250, 20, 3 * t % 256)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def decode_all(path: Path) -> npt.NDArray[np.uint8]:
    """Every frame in the plainest way, [T, H, W, 3]."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24", threads=1) for frame in container.decode(video=0)])
