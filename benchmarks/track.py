"""How well CSRT and MIL follow real objects from the first box, and whether memory stays flat over a long video.

    python -m benchmarks.track --clips CLIPS

CLIPS is a folder in the challenge's layout with `object_bboxes.txt` beside each video. A frame on which the given track
has a box counts its IoU, 0 where the tracker says absent; the others count as agreed where both say absent. Then each
object is followed back from the last frame on which it was seen; `back` is the IoU with the first box. The long video
is 2,000 synthetic frames, 640 x 360; memory is the process's resident size.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import psutil

from internvl_chat.boxes import parse_box_text
from internvl_chat.data.records.box_files import find_videos
from internvl_chat.trackers.choosing import OPENCV_TRACKERS, choose_tracker
from internvl_chat.trackers.following import GivenObject, follow
from internvl_chat.trackers.frames import Footage

LONG_FRAMES, WIDTH_PX, HEIGHT_PX, SIDE_PX = 2000, 640, 360, 60
# Frames after which the first memory is taken: buffers have their size by then.
WARM_FRAMES = 200


def ious(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Intersection over union of boxes x y w h with area in `b`, [T, 4] each."""
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=1)
    return common / (np.prod(a[:, 2:], axis=1) + np.prod(b[:, 2:], axis=1) - common)


def compare(video: Path, name: str) -> tuple[float, str]:
    """The mean IoU over the frames with a given box, and a line about the video."""
    truth = parse_box_text(video.with_name("object_bboxes.txt"))
    footage, settings = Footage(video), choose_tracker(name)
    is_there = (truth[:, 2:] > 0).all(axis=1)
    first = int(np.flatnonzero(is_there)[0])
    started = time.perf_counter()
    there = [GivenObject(video.stem, {first: truth[first]})]
    boxes_px = follow(footage, there, settings.make, settings.min_confidence).boxes_px[0]
    seconds = time.perf_counter() - started
    last = int(np.flatnonzero(boxes_px.any(axis=1))[-1])
    back = [GivenObject(video.stem, {last: boxes_px[last]})]
    returned = follow(footage, back, settings.make, settings.min_confidence).boxes_px[0]
    scores = ious(boxes_px[is_there], truth[is_there])
    absent = f"{int((~boxes_px.any(axis=1) & ~is_there).sum())} of {int((~is_there).sum())}"
    back_iou = ious(returned[first : first + 1], truth[first : first + 1])[0]
    rate = len(truth) / seconds
    return float(scores.mean()), (
        f"| {video.stem} | {name} | {scores.mean():.3f} | {absent} | {back_iou:.3f} | {rate:.0f} |"
    )


def write_long_video(path: Path) -> None:
    rng = np.random.default_rng(0)
    ground = np.repeat(np.repeat(rng.integers(80, 160, (HEIGHT_PX // 8, WIDTH_PX // 8, 3)), 8, axis=0), 8, axis=1)
    mark = rng.integers(180, 255, (SIDE_PX, SIDE_PX, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(30), options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for t in range(LONG_FRAMES):
            picture = ground.astype(np.uint8)
            x, y = _place(t)
            picture[y : y + SIDE_PX, x : x + SIDE_PX] = mark
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _place(t: int) -> tuple[int, int]:
    """Left and top of the moving square."""
    return 290 + round(200 * np.sin(t / 60)), 150 + round(100 * np.cos(t / 45))


def measure_memory(name: str, video: Path) -> str:
    process, sizes_mib = psutil.Process(), []

    def note() -> None:
        sizes_mib.append(process.memory_info().rss / 2**20)

    footage, settings = Footage(video), choose_tracker(name)
    middle = LONG_FRAMES // 2
    box = np.array([*_place(middle), SIDE_PX, SIDE_PX], dtype=np.float64)
    follow(footage, [GivenObject("square", {middle: box})], settings.make, settings.min_confidence, note)
    forwards, backwards = sizes_mib[: LONG_FRAMES - middle], sizes_mib[LONG_FRAMES - middle :]
    return (
        f"{name}: forwards {forwards[WARM_FRAMES]:.0f} MiB after {WARM_FRAMES} frames, {forwards[-1]:.0f} at the end; "
        f"backwards {backwards[WARM_FRAMES]:.0f} MiB after {WARM_FRAMES}, {backwards[-1]:.0f} at the end"
    )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="folder of <category>/<id>/<id>.mp4")
    args = parser.parse_args()
    _say("| clip | tracker | mean IoU | absent as given | back | frames a second |\n|---|---|---|---|---|---|")
    for name in OPENCV_TRACKERS:
        means = []
        for video in find_videos(args.clips):
            mean, line = compare(video, name)
            means.append(mean)
            _say(line)
        _say(f"| all | {name} | {np.mean(means):.3f} | | | |")
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "long.mp4"
        write_long_video(video)
        for name in OPENCV_TRACKERS:
            _say(measure_memory(name, video))


if __name__ == "__main__":
    main()
