"""Prepare one video sample (300 frames of 720p, 40 shown) on one core: ours against decord, PIL and torchvision.

    python benchmarks/video_sample.py [--video CLIP]

The baseline reads with decord and sends frame by frame through torchvision's transforms of PIL pictures (resize to
448, to tensor, normalise), then stacks: InternVL's own way. Both sides end with a float32 tensor of the same shape and
the frames' boxes. All run in this process on one core and take turns. Prints a Markdown table of medians, how far our
pixels are from the baseline's, whether eight loader workers feed a GPU that takes 1.5 s a pass, and ends with one JSON
line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import decord
import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from benchmarks.clips import write_clip
from internvl_chat.boxes import load_boxes, save_boxes
from internvl_chat.constants import IMAGENET_MEAN, IMAGENET_STD
from internvl_chat.data.media.frame_cache import FrameCache
from internvl_chat.data.media.sampling import sample_frames
from internvl_chat.data.media.transforms import TileTransform, normalise
from internvl_chat.data.media.video import read_frames, read_header, stream_frames

NUM_FRAMES, FRAMES_SHOWN, TILE_PX, REPEATS = 300, 40, 448, 7
WORKERS, GPU_SECONDS_A_PASS = 8, 1.5
BASELINE, OURS, AS_UINT8 = "decord + PIL + torchvision", "frames one by one", "frames one by one, left as uint8"


def report(times: dict[str, list[tuple[float, float]]], levels: torch.Tensor) -> None:
    """Print what each way took, CPU and clock seconds of every repeat, and how far pixels are from the baseline's."""
    cpu_s = {way: statistics.median(cpu for cpu, _ in pairs) for way, pairs in times.items()}
    clock_s = {way: statistics.median(clock for _, clock in pairs) for way, pairs in times.items()}
    write = sys.stdout.write
    write("| way | CPU ms | clock ms | times faster (CPU) |\n|---|---|---|---|\n")
    for way in times:
        write(f"| {way} | {1000 * cpu_s[way]:.0f} | {1000 * clock_s[way]:.0f} | {cpu_s[BASELINE] / cpu_s[way]:.2f} |\n")
    write(
        f"\nPixels against PIL's: mean difference {levels.mean():.4f} of 255 levels, largest {levels.max():.0f}, "
        f"{(levels > 0).float().mean():.2%} differ\n"
    )
    ours = cpu_s[OURS]
    a_second = WORKERS / ours
    write(
        f"{WORKERS} workers, a core each: {WORKERS} / {ours:.3f} s = {a_second:.1f} passes a second; a GPU at "
        f"{GPU_SECONDS_A_PASS} s a pass takes {1 / GPU_SECONDS_A_PASS:.2f}: "
        f"{a_second * GPU_SECONDS_A_PASS:.0f} GPUs are fed\n"
    )
    packages = ", ".join(f"{p} {version(p)}" for p in ("av", "decord", "pillow", "torchvision", "torch"))
    write(f"{time.strftime('%Y-%m-%d')}; {packages}\n")
    ratio = cpu_s[BASELINE] / ours
    result = {"baseline_seconds": cpu_s[BASELINE], "seconds": ours, "ratio": ratio}
    result |= {"uint8_ratio": cpu_s[BASELINE] / cpu_s[AS_UINT8]}
    write(json.dumps({key: round(value, 4) for key, value in result.items()}) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, help="a file of your own in place of the synthetic clip")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video, track = args.video or folder / "clip.mp4", folder / "object_bboxes.npy"
        if not args.video:
            write_clip(video, NUM_FRAMES)
        num_frames = read_header(video).num_frames
        save_boxes(track, np.tile(np.array([100, 200, 300, 400]), (num_frames, 1)))
        indices = sample_frames(FRAMES_SHOWN, num_frames, "rand", np.random.default_rng(0))
        cache = FrameCache(folder / "cache", 10**9)
        steps = transforms.Compose(
            [
                transforms.Resize((TILE_PX, TILE_PX), interpolation=transforms.InterpolationMode.BICUBIC),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )
        transform = TileTransform(TILE_PX)

        def boxes() -> torch.Tensor:
            return torch.from_numpy(load_boxes(track)[indices])

        def baseline() -> Any:
            frames = decord.VideoReader(str(video), num_threads=1).get_batch(indices.tolist()).asnumpy()
            return torch.stack([steps(Image.fromarray(frame).convert("RGB")) for frame in frames]), boxes()

        def streamed() -> Any:
            return transform(stream_frames(video, indices)), boxes()

        def at_once() -> Any:
            return transform(read_frames(video, indices)), boxes()

        def uint8_tiles() -> Any:
            return torch.from_numpy(transform.tiles(stream_frames(video, indices))), boxes()

        def cached() -> Any:
            tiles = cache.tiles(video, indices, TILE_PX, "pyav", lambda: transform.tiles(stream_frames(video, indices)))
            return normalise(tiles), boxes()

        ways: dict[str, Callable[[], Any]] = {
            BASELINE: baseline,
            OURS: streamed,
            "all frames first": at_once,
            AS_UINT8: uint8_tiles,
            "from the frame cache": cached,
        }
        times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(REPEATS):
            for way, prepare in ways.items():
                prepare()  # a worker prepares one sample after another: its memory is warm
                cpu, clock = time.process_time(), time.perf_counter()
                prepare()
                times[way].append((time.process_time() - cpu, time.perf_counter() - clock))
        std = torch.tensor(IMAGENET_STD)[:, None, None]
        levels = ((streamed()[0] - baseline()[0]) * std * 255).round().abs()

    report(times, levels)
    return 0


if __name__ == "__main__":
    sys.exit(main())
