"""Reading videos: the container's header, and chosen frames.

PyAV is the default reader; decord can be selected. Both bundle their codecs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from internvl_chat.contracts import UserError

VideoBackend = Literal["pyav", "decord"]
VIDEO_BACKENDS = get_args(VideoBackend)


@dataclass(frozen=True)
class VideoHeader:
    """What the container says about its first video stream, without decoding; `num_frames` is 0 if it does not say."""

    width_px: int
    height_px: int
    num_frames: int
    frames_per_second: float


def read_header(path: Path) -> VideoHeader:
    """Read size, length and rate from the container's header.

    Raises:
        UserError: the file is missing, is no video, or states no size.
    """
    import av

    if not path.is_file():
        raise UserError(f"{path}: video not found")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path}: has no video stream")
            stream = container.streams.video[0]
            header = VideoHeader(
                stream.codec_context.width,
                stream.codec_context.height,
                stream.frames,
                float(stream.average_rate or 0),
            )
    except (av.FFmpegError, OSError) as error:
        raise UserError(f"{path}: is not a readable video ({error})") from error
    if header.width_px < 1 or header.height_px < 1:
        raise UserError(f"{path}: the header states no picture size, got {header.width_px} x {header.height_px}")
    return header


def read_frames(path: Path, indices: npt.NDArray[np.integer], backend: VideoBackend = "pyav") -> npt.NDArray[np.uint8]:
    """Decode chosen frames.

    Args:
        indices: [F] frame numbers, ascending, repeats allowed.
    Returns:
        [F, H, W, 3] uint8, RGB.
    Raises:
        UserError: the video cannot be decoded, or ends before a frame that was asked for.
    """
    if not path.is_file():
        raise UserError(f"{path}: video not found")
    if not len(indices) or indices[0] < 0 or np.any(np.diff(indices) < 0):
        raise ValueError(f"expected ascending frame numbers from 0, got {indices.tolist()}")
    if backend == "pyav":
        return _read_frames_pyav(path, indices)
    if backend == "decord":
        return _read_frames_decord(path, indices)
    raise UserError(f"unknown video backend {backend!r}: expected one of {', '.join(VIDEO_BACKENDS)}")


def _read_frames_pyav(path: Path, indices: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    import av

    wanted = [int(i) for i in indices]
    frames: list[npt.NDArray[np.uint8]] = []
    number = -1
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for number, frame in enumerate(container.decode(stream)):
                if number == wanted[len(frames)]:
                    picture = frame.to_ndarray(format="rgb24")
                    while len(frames) < len(wanted) and wanted[len(frames)] == number:
                        frames.append(picture)
                    if len(frames) == len(wanted):
                        return np.stack(frames)
    except (av.FFmpegError, IndexError, OSError) as error:
        raise UserError(f"{path}: cannot be decoded ({error})") from error
    raise UserError(f"{path}: ends after {number + 1} frames, frame {wanted[len(frames)] + 1} was expected")


def _read_frames_decord(path: Path, indices: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    import decord

    try:
        return decord.VideoReader(str(path), num_threads=1).get_batch(indices.tolist()).asnumpy()
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        raise UserError(f"{path}: cannot be decoded ({str(error).strip().splitlines()[-1]})") from error
