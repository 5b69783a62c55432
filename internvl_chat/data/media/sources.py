"""What a sample shows, whatever it is kept in: images, a video file, an animated GIF, or a folder of frames.

Shape letters: F pictures, H and W their pixels. A text-only sample shows nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from internvl_chat.choices import VideoBackend
from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.media.video import read_frames, read_header

# F pictures [H, W, 3] uint8 RGB; of a video one array [F, H, W, 3].
Pictures = Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8]

# Others that Pillow knows start programs (EPS) or are no pictures.
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
PICTURE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"))

# Pillow's own bound for a picture that is no attack on memory; and nine hours at 30 frames a second.
MAX_PICTURE_PIXELS = 89_478_485
MAX_VIDEO_FRAMES = 1_000_000

# Enough of a video to tell it from another.
_MARK_BYTES = 2**18

# What Pillow's decoders raise, over its formats, at a file that is cut off or is none.
PICTURE_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    Image.DecompressionBombError,
)


def content_mark(path: Path) -> str:
    """A hash that tells a video or a picture from another one under the same name, by its size and its beginning.

    Of a folder of frames it is that of its files' names and sizes.

    Raises:
        UserError: it cannot be read.
    """
    try:
        if path.is_dir():
            said = "\n".join(f"{file.name} {file.stat().st_size}" for file in sorted(path.iterdir())).encode()
        else:
            with path.open("rb") as file:
                said = f"{path.stat().st_size} ".encode() + file.read(_MARK_BYTES)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return hashlib.sha256(said).hexdigest()


@dataclass(frozen=True)
class MediaHeader:
    """What is known of a sample's pictures before one is decoded.

    Args:
        num_pictures: frames of the video, or images.
        sizes_px: width and height, one for all frames of a video, or one an image.
        frames_per_second: 0 where there is no time.
    """

    num_pictures: int
    sizes_px: tuple[tuple[int, int], ...]
    frames_per_second: float = 0.0

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
        return MediaHeader(len(sample.image_paths), tuple(_picture_size(path) for path in sample.image_paths))
    path = sample.video_path
    if path.is_dir():
        frames = frame_files(path, sample.root)
        header = MediaHeader(len(frames), (_picture_size(frames[0]),))
    else:
        stated = read_header(path)
        num_frames = stated.num_frames or _count_frames(path)
        size_px = (stated.width_px, stated.height_px)
        header = MediaHeader(num_frames, (_bounded(path, size_px),), stated.frames_per_second)
    if not 1 <= header.num_pictures <= MAX_VIDEO_FRAMES:
        raise UserError(f"{path}: has {header.num_pictures} frames, expected 1 to {MAX_VIDEO_FRAMES}: cut it")
    return header


def read_pictures(sample: Sample, indices: npt.NDArray[np.integer], backend: VideoBackend = "pyav") -> Pictures:
    """Decode a sample's pictures at these numbers, ascending.

    Raises:
        UserError: a file is missing or cannot be decoded.
    """
    if sample.video_path is None:
        return [_read_picture(sample.image_paths[i]) for i in indices]
    if not sample.video_path.is_dir():
        return read_frames(sample.video_path, indices, backend)
    files = frame_files(sample.video_path, sample.root)
    frames = [_read_picture(files[i]) for i in indices]
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
        UserError: the folder holds none, or a link leads out of `root`.
    """
    try:
        names = [name for name in os.listdir(folder) if Path(name).suffix.lower() in PICTURE_SUFFIXES]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error})") from error
    if not names:
        raise UserError(f"{folder}: holds no frames, expected pictures such as 00000001.jpg")
    files = [folder / name for name in sorted(names, key=_natural_key)]
    for file in files:
        if root is not None and file.is_symlink() and not Path(os.path.realpath(file)).is_relative_to(root):
            raise UserError(f"{file}: a link leads out of the dataset's root; 'allow_outside_root' would allow it")
    return files


def _natural_key(name: str) -> list[tuple[int, str]]:
    """Runs of digits by their value, everything else by its letters."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def _bounded(path: Path, size_px: tuple[int, int]) -> tuple[int, int]:
    width_px, height_px = size_px
    if width_px * height_px > MAX_PICTURE_PIXELS:
        raise UserError(
            f"{path}: is {width_px} x {height_px}, expected at most {MAX_PICTURE_PIXELS} pixels: scale it down"
        )
    return size_px


def _picture_size(path: Path) -> tuple[int, int]:
    with _open_picture(path) as image:
        return image.size


def _open_picture(path: Path) -> Image.Image:
    if not path.is_file():
        raise UserError(f"{path}: is a folder, expected a picture" if path.is_dir() else f"{path}: picture not found")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=PICTURE_FORMATS)
    except PICTURE_FAULTS as error:
        raise UserError(f"{path}: is not a readable picture ({error})") from error
    try:
        _bounded(path, image.size)
    except UserError:
        image.close()
        raise
    return image


def _read_picture(path: Path) -> npt.NDArray[np.uint8]:
    with _open_picture(path) as image:
        try:
            return np.array(image.convert("RGB"))
        except PICTURE_FAULTS as error:
            raise UserError(f"{path}: cannot be decoded ({error})") from error


def _count_frames(path: Path) -> int:
    """Frames of a video whose header does not say: its packets are counted, none is decoded."""
    import av

    count = 0
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            for packet in container.demux(container.streams.video[0]):
                count += packet.size > 0
                if count > MAX_VIDEO_FRAMES:
                    break
    except (av.FFmpegError, IndexError, OSError) as error:
        raise UserError(f"{path}: cannot be decoded ({error})") from error
    return count
