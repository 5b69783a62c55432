"""Time reading 40 frames of short, medium and long videos with each backend, and the ways of doing it with PyAV.

    python benchmarks/video_decode.py

The videos are synthetic (1280 x 720, H.264, see clips.py), with a key frame every 250 frames or every 30, and are
written to a temporary folder. Prints a Markdown table of the median of seven reads, milliseconds of CPU time (of all
threads) and of the clock; the ways take turns, so that other load on the machine meets all alike.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from benchmarks.clips import write_clip
from internvl_chat.contracts import UserError
from internvl_chat.data.media.sampling import sample_frames
from internvl_chat.data.media.video import VIDEO_BACKENDS, VideoBackend, stream_frames

FRAMES_READ, REPEATS, TILE_PX = 40, 7, 448
CLIPS = ((50, 250), (300, 250), (2500, 250), (2500, 30))


def every_frame(path: Path, indices: npt.NDArray[np.int64], threads: int, side_px: int | None = None) -> None:
    """Decode all frames up to the last wanted one, and convert those wanted; `threads` 0 leaves them to FFmpeg."""
    wanted = set(indices.tolist())
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = threads
        stream.thread_type = "AUTO"
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                frame.reformat(side_px, side_px, "rgb24", interpolation="BICUBIC" if side_px else None)
            if number == indices[-1]:
                return


def read(path: Path, indices: npt.NDArray[np.int64], backend: VideoBackend) -> None:
    for _ in stream_frames(path, indices, backend):
        pass


def ways() -> dict[str, Callable[[Path, npt.NDArray[np.int64]], None]]:
    chosen: dict[str, Callable[[Path, npt.NDArray[np.int64]], None]] = {
        "PyAV, every frame, 1 thread": lambda path, indices: every_frame(path, indices, 1),
        "every frame, AUTO threads": lambda path, indices: every_frame(path, indices, 0),
        "every frame, straight to 448 px": lambda path, indices: every_frame(path, indices, 1, TILE_PX),
    }
    for backend in VIDEO_BACKENDS:
        chosen[f"`{backend}`"] = lambda path, indices, backend=backend: read(path, indices, backend)  # type: ignore[misc]
    return chosen


def usable(way: Callable[[Path, npt.NDArray[np.int64]], None], path: Path, indices: npt.NDArray[np.int64]) -> bool:
    try:
        way(path, indices)
    except UserError as error:
        if "torchcodec" in str(error):
            return False
        raise
    return True


def median_ms(path: Path, indices: npt.NDArray[np.int64]) -> list[str]:
    """A cell for each way: CPU time and clock time."""
    times: dict[str, list[tuple[float, float]]] = {}
    chosen = {name: way for name, way in ways().items() if usable(way, path, indices)}
    for _ in range(REPEATS):
        for name, way in chosen.items():
            cpu, clock = time.process_time(), time.perf_counter()
            way(path, indices)
            times.setdefault(name, []).append((time.process_time() - cpu, time.perf_counter() - clock))
    cells = []
    for name in ways():
        medians = [1000 * statistics.median(column) for column in zip(*times.get(name, []), strict=True)]
        cells.append("{:.0f} / {:.0f}".format(*medians) if medians else "not measured")
    return cells


def version_of(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"


def main() -> None:
    sys.stdout.write(f"| frames | key frame every | {' | '.join(ways())} |\n")
    sys.stdout.write("|---|---|" + "---|" * len(ways()) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        for num_frames, key_frame_every in CLIPS:
            path = Path(folder) / f"{num_frames}-{key_frame_every}.mp4"
            write_clip(path, num_frames, key_frame_every)
            indices = sample_frames(FRAMES_READ, num_frames, "rand", np.random.default_rng(0))
            sys.stdout.write(f"| {num_frames} | {key_frame_every} | {' | '.join(median_ms(path, indices))} |\n")
            sys.stdout.flush()
    packages = ", ".join(map(version_of, ("av", "decord", "torchcodec", "numpy")))
    sys.stdout.write(f"\n{time.strftime('%Y-%m-%d')}; {packages}; {FRAMES_READ} frames read; CPU ms / clock ms\n")


if __name__ == "__main__":
    main()
