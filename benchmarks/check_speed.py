"""Time `python -m internvl_chat check` on 980 videos with five captions each.

    python benchmarks/check_speed.py

The videos are synthetic (seven different clips of 300 frames, 1280 x 720, H.264), each copied to its 140 places, with a
box file beside every copy; they are written to a temporary folder, about 300 MB. The command runs with two workers.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from internvl_chat.boxes import save_boxes
from internvl_chat.choices import PROMPT_FORMS
from internvl_chat.data.records.annotations import boxes_path_of, caption_records, video_path_of
from internvl_chat.files import write_json, write_jsonl

NUM_CLIPS, VIDEOS_A_CLIP, CAPTIONS_A_VIDEO = 7, 140, 5
NUM_FRAMES, WIDTH_PX, HEIGHT_PX = 300, 1280, 720


def write_clip(path: Path, shade: int) -> None:
    picture = np.full((HEIGHT_PX, WIDTH_PX, 3), shade, dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(30), options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for t in range(NUM_FRAMES):
            picture[:, 4 * t : 4 * t + 40] += 1
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def write_dataset(folder: Path) -> Path:
    left = np.arange(NUM_FRAMES)
    boxes = np.stack([left, left + 100, left + 200, left + 400], axis=1)
    captions = {}
    for clip in range(NUM_CLIPS):
        source = folder / f"clip{clip}.mp4"
        write_clip(source, 30 * clip)
        for number in range(VIDEOS_A_CLIP):
            video_id = f"kind{clip}-{number + 1}"
            video = video_path_of(folder / "root", video_id)
            video.parent.mkdir(parents=True)
            shutil.copyfile(source, video)
            save_boxes(boxes_path_of(video), boxes)
            captions[video_id] = [f"caption {k} of {video_id}" for k in range(CAPTIONS_A_VIDEO)]
    count = write_jsonl(folder / "lines.jsonl", caption_records(captions, PROMPT_FORMS["coordinates"]))
    entry = {"root": str(folder / "root"), "annotation": str(folder / "lines.jsonl"), "length": count}
    write_json(folder / "meta.json", {"synthetic": entry})
    return folder / "meta.json"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        meta = write_dataset(Path(folder))
        argv = [sys.executable, "-m", "internvl_chat", "check", str(meta), "--workers", "2", "--json"]
        started = time.perf_counter()
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
    report = json.loads(done.stdout)
    sys.stdout.write(
        f"{sum(report['records'].values())} records, {NUM_CLIPS * VIDEOS_A_CLIP} videos of {NUM_FRAMES} frames: "
        f"{seconds:.1f} s with 2 workers on {os.cpu_count()} cores, {report['errors'] + report['warnings']} findings\n"
    )


if __name__ == "__main__":
    main()
