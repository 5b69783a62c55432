"""Videos as folders of numbered pictures, and records that show the folders as videos.

DIR/<video without its suffix>/frame_0001.png ...   records.jsonl   meta.json   settings.json
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.media.sampling import sample_frames
from internvl_chat.data.media.sources import frame_files, read_media_header, videos_below
from internvl_chat.data.media.video import stream_frames
from internvl_chat.data.records.reader import RecordReader
from internvl_chat.files import parse_json, read_text, replacing_folder, split_records
from internvl_chat.processes import worker_pool


@dataclass(frozen=True)
class FrameFolder:
    """What became of a video: its folder's pictures, or why it has none."""

    video: Path
    num_pictures: int = 0
    was_there: bool = False
    fault: str = ""


def find_videos(root: Path) -> list[Path]:
    """Every video below a folder, sorted.

    Raises:
        UserError: there is none, or two would share a folder of frames.
    """
    if not root.is_dir():
        raise UserError(f"{root}: is no folder; give the folder that holds the videos")
    videos = videos_below(root)
    if not videos:
        raise UserError(f"{root}: holds no video, expected files such as a.mp4")
    _refuse_shared_names(videos)
    return videos


def _refuse_shared_names(videos: Iterable[Path]) -> None:
    for stem, count in Counter(video.with_suffix("") for video in videos).items():
        if count > 1:
            raise UserError(f"{stem}.*: are {count} videos of one name, whose frames would share a folder: rename one")


def frames_at_rate(video: Path, rate: float) -> npt.NDArray[np.integer]:
    """The frames that `--sampling_method fps<rate>` shows of a video, however many.

    Raises:
        UserError: the video cannot be read or states no rate.
    """
    header = read_media_header(Sample("", (), str(video), video_path=video))
    count = header.num_pictures
    return sample_frames(count, count, f"fps{rate:f}", timeline=header.timeline)


def extract_frames(
    videos: Sequence[Path], root: Path, folder: Path, rate: float, workers: int
) -> Iterator[FrameFolder]:
    """Write the frames of each video, at most `rate` a second, to its folder; yields each video when it is done.

    Args:
        root: what the videos' folders below `folder` are named relative to.
    """
    write = partial(_write_frames, root, folder, rate)
    with worker_pool(workers) as pool:
        yield from pool.map(write, videos)


def _write_frames(root: Path, folder: Path, rate: float, video: Path) -> FrameFolder:
    target = folder / video.relative_to(root).with_suffix("")
    try:
        if target.is_dir():
            return FrameFolder(video, len(frame_files(target)), was_there=True)
        indices = frames_at_rate(video, rate)
        with replacing_folder(target) as half_done:
            for number, frame in enumerate(stream_frames(video, indices), start=1):
                Image.fromarray(frame).save(half_done / f"frame_{number:04d}.png", compress_level=1)
    except (UserError, OSError) as error:
        return FrameFolder(video, fault=str(error))
    return FrameFolder(video, len(indices))


def videos_in_records(records: Path, root: Path) -> dict[str, Path]:
    """The video that each record shows, by the line it stands on (`file:line`).

    Raises:
        UserError: a record cannot be read, or has what counts the frames or seconds of its video, or two videos would
            share a folder of frames.
    """
    reader = RecordReader(root)
    videos = {}
    for source, record in _numbered(records):
        sample = reader.read(record, source)
        if sample.video_path is None:
            continue
        if sample.tracks or sample.clip_s:
            raise UserError(
                f"{source}: sample {sample.id!r} has a track or a clip, which count the video's own frames or seconds: "
                "show the video itself"
            )
        videos[source] = sample.video_path
    if not videos:
        raise UserError(f"{records}: no record shows a video")
    _refuse_shared_names(set(videos.values()))
    return videos


def folder_records(records: Path, root: Path, videos: Mapping[str, Path], lost: Iterable[Path]) -> Iterator[Any]:
    """The records with their videos' folders of frames in place of the videos; those of `lost` videos left out."""
    left_out = set(lost)
    for source, record in _numbered(records):
        video = videos.get(source)
        if video is None:
            yield record
        elif video not in left_out:
            yield {**record, "video": video.relative_to(root).with_suffix("").as_posix()}


def _numbered(records: Path) -> Iterator[tuple[str, Any]]:
    for raw in split_records(read_text(records), records):
        source = f"{records}:{raw.line}"
        yield source, parse_json(raw.text, source)
