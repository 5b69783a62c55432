"""Videos of a red square on grey whose place in every shown frame is known, stored in ways that players undo."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

STORED_PX, SQUARE_PX = (160, 96), 32
# Ticks a second of the times that frames are given.
TICKS = 600


def square_at(number: int) -> tuple[int, int]:
    """Left and top of the square in the stored frame of this number."""
    return 8 + 5 * number % 100, 8 + 3 * number % 48


def stored_frame(number: int) -> npt.NDArray[np.uint8]:
    """Grey that tells the frame's number by its level, with the square."""
    frame = np.full((STORED_PX[1], STORED_PX[0], 3), 4 * number + 10, np.uint8)
    x, y = square_at(number)
    frame[y : y + SQUARE_PX, x : x + SQUARE_PX] = (230, 20, 20)
    return frame


def write_film(
    path: Path,
    times: Sequence[int],
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    turn: tuple[float, bool, bool] | None = None,
    matrix: Sequence[int] | None = None,
    pixel_aspect: Fraction | None = None,
) -> Path:
    """A film whose frames come at these times, in 600ths of a second.

    `turn` is the degrees against the clock, and whether it is then mirrored left to right and upside down.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=60, options=options or {})
        (stream.width, stream.height), stream.pix_fmt = STORED_PX, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if turn is not None:
            stream.set_display_rotation(*turn)
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(stored_frame(number), "rgb24")
            frame.pts, frame.time_base = time, Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def edit(path: Path, first_s: float, last_s: float) -> Path:
    """Let the MP4's edit list show this part of it alone, as trimming without encoding does."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        time_base = container.streams.video[0].time_base
    assert time_base is not None
    at = data.index(b"elst") + 12
    start = struct.unpack(">i", data[at + 4 : at + 8])[0]
    data[at : at + 8] = struct.pack(">Ii", round((last_s - first_s) * 1000), start + round(first_s / time_base))
    path.write_bytes(data)
    return path


_BOXES = {b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl"}


def with_box(path: Path, kind: bytes, change: Callable[[bytes], bytes]) -> Path:
    """Change the content of an MP4's first box of this kind, whose index stands behind its pictures."""

    def rewritten(data: bytes) -> bytes:
        at, parts = 0, []
        while at < len(data):
            size, name = struct.unpack_from(">I4s", data, at)
            body = data[at + 8 : at + size]
            body = change(body) if name == kind else rewritten(body) if name in _BOXES else body
            parts.append(struct.pack(">I4s", 8 + len(body), name) + body)
            at += size
        return b"".join(parts)

    path.write_bytes(rewritten(path.read_bytes()))
    return path


def with_edits(path: Path, *edits: tuple[int, float, int]) -> Path:
    """Give an MP4 an edit list: for so many milliseconds, from this second on (below 0: nothing), at this speed."""
    with av.open(str(path)) as container:
        ticks = 1 / (container.streams.video[0].time_base or 1)

    def listed(old: bytes) -> bytes:
        begin = struct.unpack_from(">i", old, 12)[0]
        rows = [(ms, round(begin + s * ticks) if s >= 0 else -1, speed, 0) for ms, s, speed in edits]
        return struct.pack(">II", 0, len(rows)) + b"".join(struct.pack(">Iihh", *row) for row in rows)

    return with_box(path, b"elst", listed)


def with_clean_aperture(path: Path, width_px: int, height_px: int) -> Path:
    """Let an MP4 ask for the middle of its pictures alone."""
    crop = struct.pack(">I4s8i", 40, b"clap", width_px, 1, height_px, 1, 0, 1, 0, 1)

    def described(old: bytes) -> bytes:
        size = struct.unpack_from(">I", old, 8)[0]
        return old[:8] + struct.pack(">I", size + len(crop)) + old[12 : 8 + size] + crop + old[8 + size :]

    return with_box(path, b"stsd", described)


def plainly_decoded(path: Path) -> tuple[list[int], list[float]]:
    """The numbers that the frames show, and their times in seconds from the first, by a whole decode."""
    with av.open(str(path)) as container:
        # Threads of a decoder that is not yet collected would hang processes forked from this one.
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        frames = list(container.decode(stream))
    times = [float((frame.pts or 0) * (frame.time_base or 1)) for frame in frames]
    numbers = [
        round((float(np.median(frame.to_ndarray(format="rgb24", threads=1)[..., 1])) - 10) / 4) for frame in frames
    ]
    return numbers, [time - times[0] for time in times]


def red_part(picture: npt.NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """x1 y1 x2 y2 of what is red, in fractions of the picture's sides."""
    values = picture.astype(int)
    ys, xs = np.nonzero(values[..., 0] - values[..., 1] > 90)
    height_px, width_px = picture.shape[:2]
    return xs.min() / width_px, ys.min() / height_px, (xs.max() + 1) / width_px, (ys.max() + 1) / height_px
