"""What a sample shows, whatever it is kept in: images, a video file, an animated GIF, or a folder of frames.

Shape letters: F pictures, H and W their pixels. A text-only sample shows nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from internvl_chat.choices import VideoBackend
from internvl_chat.constants import FEATURES_SUFFIX, VIDEO_SUFFIXES
from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.media.display import Display
from internvl_chat.data.media.pictures import PICTURE_SUFFIXES, UNREAD_SUFFIXES, bounded, picture_size, read_picture
from internvl_chat.data.media.timeline import Timeline
from internvl_chat.data.media.video import read_frames, read_header
from internvl_chat.data.media.video_features import frames_of_features

MediaKind = Literal["image", "video"]

# Nine hours at 30 frames a second.
MAX_VIDEO_FRAMES = 1_000_000

# F pictures [H, W, 3] uint8 RGB; of a video one array [F, H, W, 3].
Pictures = Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8]

# Names of frames count in even steps, but for some that are missing; fewer, or a leap, tell nothing.
_FEWEST_TO_COUNT, _EVEN_SHARE, _LONGEST_GAP = 4, 0.6, 10_000

# Enough of a video to tell it from another.
_MARK_BYTES = 2**18
# Of a folder of frames: how much is read whole, else of each; how many folders are remembered.
_WHOLE_FOLDER_BYTES, _MIDDLE_BYTES, _FOLDERS_REMEMBERED = 2**26, 2**12, 4096


def content_mark(path: Path) -> str:
    """A hash that tells a video or a picture from another one under the same name, by its size and its beginning.

    Of a folder of frames it is that of its files' names and contents; of a large one of their sizes, what is in their
    middles, and some of them whole. Pictures that are not packed are all of one size, and begin alike.

    Raises:
        UserError: it cannot be read.
    """
    try:
        if path.is_dir():
            found = [(file.name, file.stat()) for file in sorted(path.iterdir()) if file.is_file()]
            return _mark_of_folder(path, tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in found))
        with path.open("rb") as file:
            said = f"{path.stat().st_size} ".encode() + file.read(_MARK_BYTES)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return hashlib.sha256(said).hexdigest()


@lru_cache(_FOLDERS_REMEMBERED)
def _mark_of_folder(path: Path, files: tuple[tuple[str, int, int], ...]) -> str:
    """The mark of a folder with these files: name, size, and when each was written, by which this is remembered."""
    digest, last = hashlib.sha256(), len(files) - 1
    is_small = sum(size for _, size, _ in files) <= _WHOLE_FOLDER_BYTES
    for number, (name, size, _) in enumerate(files):
        digest.update(f"{name} {size}\n".encode(errors="surrogateescape"))
        with (path / name).open("rb") as file:
            if is_small or number in (0, last // 2, last):
                digest.update(file.read())
            else:
                file.seek(max(0, (size - _MIDDLE_BYTES) // 2))
                digest.update(file.read(_MIDDLE_BYTES))
    return digest.hexdigest()


def is_video_file(path: Path, suffixes: Collection[str] = VIDEO_SUFFIXES) -> bool:
    """Whether a path is that of a video, by its name; hidden files are none."""
    return path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()


def videos_below(root: Path, suffixes: Collection[str] = VIDEO_SUFFIXES) -> list[Path]:
    """Every video of a folder, at any depth, sorted."""
    return sorted(path for path in root.rglob("*") if is_video_file(path, suffixes))


def is_other_kind(path: Path, kind: MediaKind) -> bool:
    """Whether a file's name says that it is a picture where a video is expected, or the other way round."""
    suffix = path.suffix.lower()
    return suffix in VIDEO_SUFFIXES if kind == "image" else suffix in PICTURE_SUFFIXES and path.is_file()


def check_kind(path: Path, kind: MediaKind) -> None:
    """See to it that a file is what it was given as.

    Raises:
        UserError: its name says that it is the other kind.
    """
    if is_other_kind(path, kind):
        is_picture = kind == "video"
        found, expected = ("a picture", "a video or a folder of frames") if is_picture else ("a video", "a picture")
        key = "image" if is_picture else "video"
        raise UserError(f"{path}: is {found}, expected {expected}: give it as --{key}, in a record as '{key}'")


@dataclass(frozen=True)
class MediaHeader:
    """What is known of a sample's pictures before one is decoded.

    Args:
        num_pictures: frames of the video that a decoder presents, or images.
        sizes_px: width and height as they are shown, one for all frames of a video, or one an image.
        frames_per_second: on average; 0 where there is no time.
        times_s: when every frame is shown, where they do not come evenly.
        displays: how stored pictures are turned for it, as many as sizes; none where none is.
    """

    num_pictures: int
    sizes_px: tuple[tuple[int, int], ...]
    frames_per_second: float = 0.0
    times_s: tuple[float, ...] = ()
    displays: tuple[Display, ...] = ()

    @property
    def timeline(self) -> Timeline:
        return Timeline(self.num_pictures, self.frames_per_second, self.times_s)

    def display_at(self, index: int) -> Display:
        """How the stored picture of this number is turned."""
        if not self.displays:
            return Display()
        return self.displays[0 if len(self.displays) == 1 else index]

    def sizes_at(self, indices: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Width and height [F, 2] of these pictures."""
        sizes = np.array(self.sizes_px, dtype=np.int64).reshape(-1, 2)
        return np.repeat(sizes, len(indices), axis=0) if len(sizes) == 1 else sizes[indices]


def read_media_header(sample: Sample) -> MediaHeader:
    """Number, size and rate of a sample's pictures, from the headers of its files.

    Raises:
        UserError: a file is missing, cannot be read, or is larger than any picture or video to learn from.
    """
    if sample.video_path is None:
        for path in sample.image_paths:
            check_kind(path, "image")
        return images_header([picture_size(path) for path in sample.image_paths])
    path = sample.video_path
    if path.suffix == FEATURES_SUFFIX:
        header = _header_of([((1, 1), Display())], Timeline(frames_of_features(path)))
    elif path.is_dir():
        frames = frame_files(path, sample.root)
        header = _header_of([picture_size(frames[0])], Timeline(len(frames)))
    else:
        check_kind(path, "video")
        stated = read_header(path)
        header = _header_of([(bounded(path, stated.size_px), stated.display)], stated.timeline)
    if not 1 <= header.num_pictures <= MAX_VIDEO_FRAMES:
        raise UserError(f"{path}: has {header.num_pictures} frames, expected 1 to {MAX_VIDEO_FRAMES}: cut it")
    return header


def images_header(pictures: Sequence[tuple[tuple[int, int], Display]]) -> MediaHeader:
    """The header of images together, from the size at which each is shown and how it is turned for it."""
    return _header_of(pictures, Timeline(len(pictures)))


def _header_of(pictures: Sequence[tuple[tuple[int, int], Display]], timeline: Timeline) -> MediaHeader:
    displays = tuple(display for _, display in pictures)
    return MediaHeader(
        timeline.num_frames,
        tuple(size_px for size_px, _ in pictures),
        timeline.frames_per_second,
        timeline.times_s,
        displays if any(display != Display() for display in displays) else (),
    )


def read_pictures(sample: Sample, indices: npt.NDArray[np.integer], backend: VideoBackend = "pyav") -> Pictures:
    """Decode a sample's pictures at these numbers, ascending.

    Raises:
        UserError: a file is missing or cannot be decoded.
    """
    if sample.video_path is None:
        return [read_picture(sample.image_paths[i]) for i in indices]
    if sample.video_path.suffix == FEATURES_SUFFIX:
        raise UserError(f"{sample.video_path}: holds features of a video, and this model reads videos themselves")
    if not sample.video_path.is_dir():
        return read_frames(sample.video_path, indices, backend)
    files = frame_files(sample.video_path, sample.root)
    frames = [read_picture(files[i]) for i in indices]
    for index, frame in zip(indices, frames, strict=True):
        if frame.shape != frames[0].shape:
            raise UserError(
                f"{files[index]}: is {frame.shape[1]} x {frame.shape[0]}, "
                f"expected {frames[0].shape[1]} x {frames[0].shape[0]} as the folder's other frames"
            )
    return np.stack(frames)


def frame_files(folder: Path, root: Path | None = None) -> list[Path]:
    """The pictures of a folder in natural order: `9.jpg` before `10.jpg`.

    Args:
        root: the resolved folder that links may not leave; None lets them.
    Raises:
        UserError: the folder holds none, two for one frame, or a link leads out of `root`.
    """
    try:
        # macOS packs a file `._x.jpg` of notes beside each `x.jpg`.
        there = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error})") from error
    names = [name for name in there if Path(name).suffix.lower() in PICTURE_SUFFIXES]
    unread = [name for name in there if Path(name).suffix.lower() in UNREAD_SUFFIXES]
    if unread:
        raise UserError(
            f"{folder}: {len(unread)} frames such as {unread[0]} are not read: save them as JPEG or PNG first"
        )
    if not names:
        raise UserError(f"{folder}: holds no frames, expected pictures such as 00000001.jpg")
    stems: dict[str, str] = {}
    for name in names:
        if (other := stems.setdefault(Path(name).stem, name)) != name:
            raise UserError(f"{folder}: {other} and {name} stand for one frame: expected one picture a frame")
    files = [folder / name for name in sorted(names, key=_natural_key)]
    for file in files:
        if root is not None and file.is_symlink() and not Path(os.path.realpath(file)).is_relative_to(root):
            raise UserError(f"{file}: a link leads out of the dataset's root; 'allow_outside_root' would allow it")
    return files


def missing_numbers(files: Sequence[Path]) -> list[int]:
    """Numbers that a folder of frames leaves out, where their names otherwise count in even steps.

    A frame's number is its place in the folder; with a gap in the names that is not the number in its name any more.
    """
    counted = [re.search(r"([0-9]+)$", file.stem) for file in files]
    numbers = [int(match[1]) for match in counted if match]
    if len(numbers) < len(files) or len(files) < _FEWEST_TO_COUNT:
        return []
    steps = [after - before for before, after in pairwise(numbers)]
    step = min(steps)
    if step < 1 or steps.count(step) < _EVEN_SHARE * len(steps) or any(other % step for other in steps):
        return []
    return sorted(set(range(numbers[0], numbers[-1], step)) - set(numbers)) if max(steps) < _LONGEST_GAP else []


def _natural_key(name: str) -> list[tuple[int, str]]:
    """Runs of digits by their value, everything else by its letters."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]
