"""Preprocessing: `object_bboxes.txt` (pixels, x y w h) to `object_bboxes.npy` (thousandths, x1 y1 x2 y2)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from internvl_chat.boxes import (
    BOX_TEXT_NAME,
    BoxArray,
    load_boxes,
    parse_box_text,
    save_boxes,
    thousandths_from_fractions,
    thousandths_from_pixels,
)
from internvl_chat.contracts import UserError
from internvl_chat.data.media.video import VideoHeader, read_header
from internvl_chat.data.records.intentvc import boxes_path_of


@dataclass
class PrepareReport:
    """Paths of the box files by what happened to them; `failed` pairs a video with the reason."""

    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)


def find_videos(root: Path) -> list[Path]:
    """Every `ROOT/<category>/<id>/<id>.mp4`, sorted.

    Raises:
        UserError: `root` is no folder, or holds no such video.
    """
    if not root.is_dir():
        raise UserError(f"{root}: is no folder; give the dataset's root as --root")
    videos = sorted(path for path in root.glob("*/*/*.mp4") if path.stem == path.parent.name)
    if not videos:
        raise UserError(f"{root}: holds no video at <category>/<id>/<id>.mp4; is it the dataset's root?")
    return videos


def _is_up_to_date(video_path: Path, source: Path, target: Path) -> bool:
    if not target.is_file() or not source.is_file():
        return False
    if target.stat().st_mtime < max(source.stat().st_mtime, video_path.stat().st_mtime):
        return False
    try:
        load_boxes(target)
    except UserError:
        return False
    return True


def shown_thousandths(boxes_px: npt.NDArray[np.float64], header: VideoHeader, counted_in: str = "shown") -> BoxArray:
    """Boxes [T, 4], x y w h in pixels of the shown or the stored picture, as x1 y1 x2 y2 thousandths of the shown."""
    if counted_in == "shown":
        return thousandths_from_pixels(boxes_px, *header.size_px)
    corners = np.hstack([boxes_px[:, :2], boxes_px[:, :2] + boxes_px[:, 2:]]) / np.tile(header.stored_px, 2)
    return thousandths_from_fractions(header.display.shown_boxes(corners))


def write_boxes_beside(video_path: Path, overwrite: bool = False, counted_in: str = "shown") -> bool:
    """Convert the box file beside one video; in the common case no frame is decoded.

    Args:
        counted_in: `shown` or `stored`, the picture that its pixels were counted in.
    Returns:
        Whether a file was written; False if the one there is up to date.
    Raises:
        UserError: box file or video cannot be used, or they disagree about the number of frames.
    """
    source, target = video_path.with_name(BOX_TEXT_NAME), boxes_path_of(video_path)
    if not overwrite and _is_up_to_date(video_path, source, target):
        return False
    boxes_px = parse_box_text(source)
    header = read_header(video_path)
    if header.num_frames and len(boxes_px) != header.num_frames:
        line = min(len(boxes_px), header.num_frames + 1)
        raise UserError(
            f"{source}:{line}: the file has {len(boxes_px)} lines, "
            f"expected one a frame: {video_path.name} has {header.num_frames}"
        )
    save_boxes(target, shown_thousandths(boxes_px, header, counted_in))
    return True


def prepare_boxes(
    videos: list[Path], counted_in: str = "shown", *, workers: int, overwrite: bool, report: PrepareReport
) -> Iterator[Path]:
    """Convert the box files beside `videos` in parallel; yields each video when it is done and fills `report`."""
    with ProcessPoolExecutor(max_workers=workers) as pool:
        jobs = {pool.submit(write_boxes_beside, video, overwrite, counted_in): video for video in videos}
        for job in as_completed(jobs):
            video = jobs[job]
            try:
                (report.written if job.result() else report.skipped).append(boxes_path_of(video))
            except (UserError, OSError) as error:
                report.failed.append((video, str(error)))
            yield video
    report.failed.sort()
