"""Reading videos: what is shown of them, and chosen frames.

PyAV is the default reader; decord and torchcodec can be selected, and are refused where they would show another
picture than players do. The first two bundle their codecs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from internvl_chat.choices import VIDEO_BACKENDS, VideoBackend
from internvl_chat.contracts import UserError
from internvl_chat.data.media.display import Display
from internvl_chat.data.media.timeline import Timeline
from internvl_chat.files import lookalike

_TORCHCODEC_HINT = "install requirements/torchcodec.txt and FFmpeg's shared libraries, or take --video_backend pyav"


@dataclass(frozen=True)
class VideoHeader:
    """What is shown of a video's best stream: the size, and the timeline of the frames that a decoder presents.

    `stored_px` is the size of its pictures before `display` turns them; `is_opaque`: no pixel lets anything through.
    """

    stored_px: tuple[int, int]
    display: Display
    timeline: Timeline
    is_opaque: bool = True

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height as a player shows them."""
        return self.display.shown_size(*self.stored_px)

    @property
    def num_frames(self) -> int:
        return self.timeline.num_frames


def read_header(path: Path) -> VideoHeader:
    """Read size, number and times of the frames that are shown; frames are decoded only where packets do not tell.

    Raises:
        UserError: the file is missing, is no video, or states no size.
    """
    import av

    from internvl_chat.data.media.decoding.presentation import (
        has_alpha,
        open_container,
        read_presentation,
        video_stream,
    )

    if not path.is_file():
        raise UserError(f"{path}: video not found{lookalike(path)}")
    try:
        with open_container(path) as container:
            stream = video_stream(path, container)
            stored_px = stream.codec_context.width, stream.codec_context.height
            if min(stored_px) < 1:
                raise UserError(f"{path}: the header states no picture size, got {stored_px[0]} x {stored_px[1]}")
            # What a GIF does not show is white already.
            is_opaque = container.format.name == "gif" or not has_alpha(stream.codec_context.pix_fmt or "yuv420p")
            timeline, display = read_presentation(path, container, stream)
    except (av.FFmpegError, OSError) as error:
        raise UserError(f"{path}: is not a readable video ({error})") from error
    return VideoHeader(stored_px, display, timeline, is_opaque)


def stream_frames(
    path: Path, indices: npt.NDArray[np.integer], backend: VideoBackend = "pyav"
) -> Iterator[npt.NDArray[np.uint8]]:
    """Decode chosen frames one after another, so that no more than one need be held at full size.

    Args:
        indices: [F] frame numbers, ascending, repeats allowed.
    Yields:
        F frames [H, W, 3] uint8, RGB, not to be written to.
    Raises:
        UserError: the video cannot be decoded, ends before a frame that was asked for, or changes its picture size; or
            the backend would show other pictures than a player does.
    """
    if not path.is_file():
        raise UserError(f"{path}: video not found{lookalike(path)}")
    if not len(indices) or indices[0] < 0 or np.any(np.diff(indices) < 0):
        raise ValueError(f"expected ascending frame numbers from 0, got {indices.tolist()}")
    if backend not in _READERS:
        raise UserError(f"unknown video backend {backend!r}: expected one of {', '.join(VIDEO_BACKENDS)}")
    numbers, repeats = np.unique(indices, return_counts=True)
    shape: tuple[int, ...] | None = None
    for frame, repeat in zip(_READERS[backend](path, numbers.tolist()), repeats, strict=True):
        if frame.shape != (shape or frame.shape):
            raise UserError(f"{path}: changes its picture size from {shape} to {frame.shape}; expected one size")
        shape = frame.shape
        for _ in range(repeat):
            yield frame


def read_frames(path: Path, indices: npt.NDArray[np.integer], backend: VideoBackend = "pyav") -> npt.NDArray[np.uint8]:
    """All frames of `stream_frames` at once, [F, H, W, 3] uint8, RGB."""
    stream = stream_frames(path, indices, backend)
    first = next(stream)
    # Filled as they come: a list of frames beside their stack would take the memory twice.
    frames = np.empty((len(indices), *first.shape), np.uint8)
    frames[0] = first
    for place, frame in zip(frames[1:], stream, strict=True):
        place[:] = frame
    return frames


def _read_pyav(path: Path, numbers: list[int]) -> Iterator[npt.NDArray[np.uint8]]:
    from internvl_chat.data.media.decoding.pyav_frames import rgb_frames

    return rgb_frames(path, numbers)


def _read_decord(path: Path, numbers: list[int]) -> Iterator[npt.NDArray[np.uint8]]:
    import decord

    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        _refuse_unlike_player(path, "decord", len(reader))
        yield from reader.get_batch(numbers).asnumpy()
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        raise UserError(f"{path}: cannot be decoded ({str(error).strip().splitlines()[-1]})") from error


def _read_torchcodec(path: Path, numbers: list[int]) -> Iterator[npt.NDArray[np.uint8]]:
    try:
        import torchcodec
    except (ImportError, RuntimeError, OSError) as error:
        raise UserError(f"--video_backend torchcodec: it cannot be imported ({error}); {_TORCHCODEC_HINT}") from error
    if torchcodec.ffmpeg_major_version is None:
        raise UserError(f"--video_backend torchcodec: it finds no FFmpeg; {_TORCHCODEC_HINT}")
    try:
        decoder = torchcodec.decoders.VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
        _refuse_unlike_player(path, "torchcodec", len(decoder))
        yield from decoder.get_frames_at(numbers).data.numpy()
    except UserError:
        raise
    except (RuntimeError, IndexError, ValueError) as error:
        raise UserError(f"{path}: cannot be decoded ({str(error).strip().splitlines()[0]})") from error


def _refuse_unlike_player(path: Path, backend: VideoBackend, num_frames: int) -> None:
    """Refuse a video that a backend, which counts so many frames, shows unlike a player."""
    header = read_header(path)
    if header.display != Display():
        unlike = "the pictures are turned, mirrored, or of pixels that are not square"
    elif not header.is_opaque:
        unlike = "transparent parts are shown over white"
    elif header.num_frames != num_frames:
        unlike = f"{header.num_frames} frames are shown, it counts {num_frames}"
    else:
        return
    raise UserError(f"{path}: --video_backend {backend} cannot read it right: {unlike}; take --video_backend pyav")


_READERS = {"pyav": _read_pyav, "decord": _read_decord, "torchcodec": _read_torchcodec}
