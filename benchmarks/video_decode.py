"""Time reading 40 evenly spread frames of short, medium and long videos with each backend.

    python benchmarks/video_decode.py

The videos are synthetic (moving shapes over a moving gradient, 640 x 360, H.264, a key frame every 250 frames) and are
written to a temporary folder. Prints a Markdown table of the median of five reads, in milliseconds.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

import av
import numpy as np

from internvl_chat.data.frame_sampling import sample_frames
from internvl_chat.data.video import VIDEO_BACKENDS, VideoBackend, read_frames

WIDTH_PX, HEIGHT_PX, FRAMES_READ, REPEATS = 640, 360, 40, 5


def write_video(path: Path, num_frames: int) -> None:
    columns = np.arange(WIDTH_PX)[None, :, None]
    rows = np.arange(HEIGHT_PX)[:, None, None]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(30), options={"preset": "veryfast", "g": "250"})
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for t in range(num_frames):
            picture = ((columns + rows // 2 + 3 * t + np.array([0, 60, 120])) % 256).astype(np.uint8)
            left = (5 * t) % (WIDTH_PX - 80)
            picture[100:180, left : left + 80] = (230, 40, 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def median_ms(path: Path, num_frames: int, backend: VideoBackend) -> float:
    indices = sample_frames(FRAMES_READ, num_frames, "centre")
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        read_frames(path, indices, backend)
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def main() -> None:
    sys.stdout.write(f"| frames of the video | {' | '.join(f'{b}, ms' for b in VIDEO_BACKENDS)} |\n")
    sys.stdout.write("|---|" + "---|" * len(VIDEO_BACKENDS) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        for num_frames in (50, 300, 2500):
            path = Path(folder) / f"{num_frames}.mp4"
            write_video(path, num_frames)
            cells = [f"{median_ms(path, num_frames, backend):.0f}" for backend in VIDEO_BACKENDS]
            sys.stdout.write(f"| {num_frames} | {' | '.join(cells)} |\n")
    sys.stdout.write(f"\nPyAV {version('av')}, decord {version('decord')}, {FRAMES_READ} frames read\n")


if __name__ == "__main__":
    main()
