"""Preprocessing: `object_bboxes.txt` (pixels, x y w h) to `object_bboxes.npy` (thousandths, x1 y1 x2 y2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import as_completed
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
from internvl_chat.data.media.display import Display
from internvl_chat.data.media.video import read_header
from internvl_chat.data.records.box_evidence import BoxEvidence, evidence_of, judged_together
from internvl_chat.data.records.intentvc import boxes_path_of
from internvl_chat.processes import worker_pool


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


@dataclass(frozen=True)
class _Converted:
    """The boxes of one video before they are written, and what their numbers show; `is_written`: they are there."""

    boxes: BoxArray
    evidence: BoxEvidence
    is_written: bool


def shown_thousandths(
    boxes_px: npt.NDArray[np.float64], size_px: tuple[int, int], display: Display, counted_in: str = "shown"
) -> BoxArray:
    """Boxes [T, 4], x y w h in pixels, as x1 y1 x2 y2 in thousandths of the picture as it is shown.

    Args:
        size_px: at which the picture is shown.
        counted_in: `shown` or `stored`, the picture that the pixels were counted in.
    """
    if counted_in == "shown":
        return thousandths_from_pixels(boxes_px, *size_px)
    corners = np.hstack([boxes_px[:, :2], boxes_px[:, :2] + boxes_px[:, 2:]])
    return thousandths_from_fractions(display.shown_boxes(corners / np.tile(display.stored_size(*size_px), 2)))


def _convert(video_path: Path, target: Path, counted_in: str) -> _Converted:
    """Read and convert the box file beside one video; in the common case no frame is decoded.

    Args:
        target: where the boxes are to be.
    Raises:
        UserError: box file or video cannot be used, or they disagree about the number of frames.
    """
    source = video_path.with_name(BOX_TEXT_NAME)
    boxes_px = parse_box_text(source)
    header = read_header(video_path)
    if len(boxes_px) != header.num_frames:
        line = min(len(boxes_px), header.num_frames + 1)
        raise UserError(
            f"{source}:{line}: the file has {len(boxes_px)} lines, "
            f"expected one a frame: {video_path.name} has {header.num_frames}"
        )
    boxes = shown_thousandths(boxes_px, header.size_px, header.display, counted_in)
    evidence = evidence_of(boxes_px, header.size_px if counted_in == "shown" else header.stored_px)
    return _Converted(boxes, evidence, _holds(target, boxes))


def _holds(target: Path, boxes: BoxArray) -> bool:
    """Whether a box file holds these boxes. Times say nothing: unpacking and copying keep those of the source."""
    try:
        return target.is_file() and np.array_equal(load_boxes(target), boxes)
    except UserError:
        return False


def _refuse_misread(video_path: Path, evidence: BoxEvidence) -> None:
    if evidence.misread:
        raise UserError(f"{video_path.with_name(BOX_TEXT_NAME)}: {evidence.found}; expected {evidence.expected}")


def write_boxes_beside(video_path: Path, overwrite: bool = False, counted_in: str = "shown") -> bool:
    """Convert the box file beside one video.

    Args:
        counted_in: `shown` or `stored`, the picture that its pixels were counted in.
    Returns:
        Whether a file was written; False if the one there holds the same boxes.
    Raises:
        UserError: box file or video cannot be used, they disagree about the number of frames, or the numbers are not
            x y w h in pixels of the video.
    """
    target = boxes_path_of(video_path)
    converted = _convert(video_path, target, counted_in)
    _refuse_misread(video_path, converted.evidence)
    return _write(target, converted, overwrite)


def _write(target: Path, converted: _Converted, overwrite: bool) -> bool:
    if overwrite or not converted.is_written:
        try:
            save_boxes(target, converted.boxes)
        except OSError as error:
            raise UserError(
                f"{target}: cannot be written ({error.strerror}); --out FOLDER writes boxes elsewhere"
            ) from error
        return True
    return False


def prepare_boxes(
    videos: Mapping[Path, Path] | Iterable[Path],
    counted_in: str = "shown",
    *,
    workers: int,
    overwrite: bool,
    report: PrepareReport,
) -> Iterator[Path]:
    """Convert the box files beside `videos` in parallel, and write them if they are what they should be, all together.

    Yields each video when it is converted, and fills `report` in the end.

    Args:
        videos: and where the boxes of each are to be, if not beside it.
    """
    targets = videos if isinstance(videos, Mapping) else {video: boxes_path_of(video) for video in videos}
    converted: dict[Path, _Converted] = {}
    with worker_pool(workers) as pool:
        jobs = {pool.submit(_convert, video, target, counted_in): video for video, target in targets.items()}
        for job in as_completed(jobs):
            video = jobs[job]
            try:
                converted[video] = job.result()
            except (UserError, OSError) as error:
                report.failed.append((video, str(error)))
            yield video
    judged = judged_together([item.evidence for item in converted.values()])
    for (video, item), evidence in zip(converted.items(), judged, strict=True):
        try:
            _refuse_misread(video, evidence)
            (report.written if _write(targets[video], item, overwrite) else report.skipped).append(targets[video])
        except (UserError, OSError) as error:
            report.failed.append((video, str(error)))
    report.failed.sort()
