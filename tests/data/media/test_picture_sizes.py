"""A film whose pictures change their size is refused wherever it is looked at, by its header as by its frames."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from av.packet import Packet

from internvl_chat.contracts import UserError
from internvl_chat.data.media.decoding.packets import facts_of
from internvl_chat.data.media.decoding.picture_sizes import one_size, size_said, units_of
from internvl_chat.data.media.video import read_frames, read_header
from tests.data.media.films import STORED_PX, stored_frame

QUIET = {"x265-params": "bframes=0:log-level=0:repeat-headers=1"}
RATE = Fraction(1, 30)
KINDS = [
    ("mkv", "mjpeg", "yuvj420p", {}),
    ("avi", "mjpeg", "yuvj420p", {}),
    ("mkv", "libx264", "yuv420p", {"tune": "zerolatency"}),
    ("mp4", "libx264", "yuv420p", {"tune": "zerolatency"}),
    ("mkv", "libx265", "yuv420p", QUIET),
    ("mp4", "libx265", "yuv420p", QUIET),
    ("webm", "libvpx", "yuv420p", {"lag-in-frames": "0"}),
    ("webm", "libvpx-vp9", "yuv420p", {"lag-in-frames": "0"}),
    ("mp4", "libvpx-vp9", "yuv420p", {"lag-in-frames": "0"}),
    ("mkv", "libsvtav1", "yuv420p", {"preset": "12"}),
    ("mp4", "libsvtav1", "yuv420p", {"preset": "12"}),
]


@pytest.fixture(autouse=True)
def of_usual_priority() -> Iterator[None]:
    """SVT-AV1 makes a process of root real-time; what later tests start would be so too, and unstoppable."""
    usual = os.sched_getscheduler(0), os.sched_getparam(0)
    yield
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):
            os.sched_setscheduler(int(thread), *usual)


def encoded(encoder: av.VideoCodecContext, numbers: range, step: int, pixels: str) -> list[Packet]:
    packets = []
    for number in numbers:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(stored_frame(number)[::step, ::step]), "rgb24")
        frame.pts, frame.time_base = number, RATE
        packets += encoder.encode(frame.reformat(format=pixels, threads=1))
    return [*packets, *encoder.encode(None)]


def write_two(path: Path, codec: str, pixels: str, options: dict[str, str], step: int) -> None:
    """Eight frames, the last four of another encoder and so in words of their own, each `step` times smaller."""
    with av.open(str(path), "w") as container:
        try:
            stream = container.add_stream(codec, rate=30, options=options)
        except (ValueError, av.FFmpegError):
            pytest.skip(f"this PyAV has no {codec}")
        second = av.CodecContext.create(codec, "w")
        assert isinstance(second, av.VideoCodecContext)
        second.options, second.time_base = options, RATE
        for encoder, by in ((stream.codec_context, 1), (second, step)):
            encoder.width, encoder.height = (side // by for side in STORED_PX)
            encoder.pix_fmt, encoder.thread_count = pixels, 1
        packets = encoded(stream.codec_context, range(4), 1, pixels) + encoded(second, range(4, 8), step, pixels)
        for packet in packets:
            packet.stream, packet.time_base = stream, RATE
            container.mux(packet)


@pytest.mark.parametrize(("suffix", "codec", "pixels", "options"), KINDS, ids=lambda value: str(value)[:12])
def test_a_film_that_changes_its_size_is_refused(
    suffix: str, codec: str, pixels: str, options: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / f"grows.{suffix}"
    write_two(path, codec, pixels, options, step=2)
    large, small = "160 x 96", "80 x 48"
    # Matroska's H.264 is probed up to its last parameters, and so the second size is taken for the container's.
    sizes = (small, large) if (suffix, codec) == ("mkv", "libx264") else (large, small)
    message = "changes its picture size from {} to {}".format(*sizes)
    with pytest.raises(UserError, match=message):
        read_header(path)
    for numbers in ([6, 7], [2, 6]):
        with pytest.raises(UserError, match=message):
            read_frames(path, np.array(numbers))
    write_two(path, codec, pixels, options, step=1)
    assert read_header(path).num_frames == 8
    for numbers in ([6, 7], [2, 6]):
        assert len(read_frames(path, np.array(numbers))) == 2


def vp9_header(*fields: tuple[int, int]) -> bytes:
    """Bits of (value, how many), from the first on, and zeros behind them."""
    text = "".join(f"{value:0{count}b}" for value, count in fields)
    return int(text.ljust(240, "0"), 2).to_bytes(30, "big")


def test_a_predicted_picture_of_another_size_says_so() -> None:
    """Live recordings change their size without a picture that stands alone; no encoder here writes one."""
    start, references = [(2, 2), (0, 2), (0, 1), (1, 1), (1, 1), (0, 1), (0, 2)], [(0, 8), (0, 12)]
    same = vp9_header(*start, *references, (0, 1), (1, 1))
    other = vp9_header(*start, *references, (0, 3), (79, 16), (47, 16))
    assert size_said(same, "vp9", []) == b""
    assert size_said(other, "vp9", []) == bytes([0, 79, 0, 47])
    colour, sync = [(2, 3), (0, 1)], [(0x498342, 24)]
    key = vp9_header((2, 2), (0, 2), (0, 1), (0, 1), (1, 1), (0, 1), *sync, *colour, (159, 16), (95, 16))
    # Hidden, within itself, and of a profile that leaves the colours out.
    inside = vp9_header(
        (2, 2), (0, 2), (0, 1), (1, 1), (0, 1), (0, 1), (1, 1), (0, 2), *sync, (0, 8), (159, 16), (95, 16)
    )
    assert size_said(key, "vp9", []) == size_said(inside, "vp9", []) == bytes([0, 159, 0, 95])
    assert one_size([size_said(data, "vp9", []) for data in (key, same, inside)], b"")
    assert not one_size([size_said(data, "vp9", []) for data in (key, same, other)], b"")


def test_what_the_container_says_counts_where_the_first_packet_says_nothing() -> None:
    assert one_size([b"", b"", b"size"], b"..size..") and one_size([], b"") and one_size([b"a", b"", b"a"], b"")
    assert not one_size([b"", b"other"], b"..size..") and not one_size([b"a", b"b"], b"ab")
    assert size_said(b"", "vp8", []) == size_said(b"\x0a", "av1", []) == b""
    empty = b"\0\0\0\0"
    assert units_of(empty, "h264", 4) == [] and size_said(empty, "h264", units_of(empty, "h264", 4)) == b""


def test_a_packet_of_an_older_pyav_tells_no_next_description() -> None:
    """PyAV 15, which lmms-eval pins, has no side data at all."""

    class OldPacket:
        pts, is_keyframe, is_corrupt, is_discard = 3, True, False, False

        def __bytes__(self) -> bytes:
            return b"\x10\0\0\0\0\0\x50\0\x30\0"

    decoder = av.CodecContext.create("vp8", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    facts = facts_of(cast(Packet, OldPacket()), decoder)
    assert (facts.time, facts.is_shown, facts.size_said) == (3, True, b"\x50\0\x30\0")
