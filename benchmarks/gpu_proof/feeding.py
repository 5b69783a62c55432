"""What keeps a GPU fed: clips that a core decodes, and bytes a second from the host to the device."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.gpu_proof.scale import Row, Scale, seconds_of

_FRAMES_OF_A_CLIP = 300


def copies(scale: Scale) -> Iterator[Row]:
    """A sample's pixels to the device, as bytes, from memory that is pinned or not."""
    work = scale.workload
    pixels = torch.zeros(work.frames, 3, work.tile_px, work.tile_px, dtype=torch.uint8)
    kinds = {"pageable": pixels}
    if scale.device.type == "cuda":
        kinds["pinned"] = pixels.pin_memory()
    for name, kept in kinds.items():
        # On a CPU there is nowhere to copy to but beside it.
        seconds = seconds_of(partial(kept.to, scale.device, copy=True), scale)
        gb_per_s = pixels.nbytes / seconds / 1e9
        yield {"measure": f"pixels to the device, {name}", "ms": seconds * 1e3, "gb_per_s": gb_per_s}


def decoding(scale: Scale) -> Iterator[Row]:
    """Seconds of a core to read a 720p clip's frames: over a pass's seconds, the cores that a GPU wants."""
    if importlib.util.find_spec("av") is None:
        yield {"measure": "a clip decoded on one core", "failed": "PyAV is not installed here"}
        return
    from benchmarks.clips import write_clip
    from internvl_chat.data.media.video import stream_frames

    frames = _FRAMES_OF_A_CLIP if scale.device.type == "cuda" else 2 * scale.workload.frames
    with TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        write_clip(clip, frames)
        wanted = np.arange(scale.workload.frames) * frames // scale.workload.frames
        started = time.process_time()
        for _ in stream_frames(clip, wanted, "pyav"):
            pass
        seconds = time.process_time() - started
    row: Row = {"measure": f"a clip of {frames} frames decoded on one core", "s": seconds}
    yield {**row, "cores_here": len(os.sched_getaffinity(0))}
