"""Chosen frames of a video through PyAV, bit for bit those of a full decode, without decoding all of it.

Two things are left out where the stream allows it. A run of pictures, from one key frame to the next, that no wanted
frame lies in is not decoded, nor is the rest of one after its last wanted frame. And in H.264 a frame that nothing
refers to is dropped by the decoder unless it is wanted. Both need to know which frame a packet becomes: the packets'
presentation times, sorted, number the frames. Where they do not tell, or a wanted frame does not come out, every frame
is decoded and counted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from internvl_chat.contracts import UserError
from internvl_chat.data.media.decoding.packets import (
    ONE_FRAME_A_PACKET,
    TIMED_CONTAINERS,
    PacketFacts,
    codec_name,
    facts_of,
)
from internvl_chat.data.media.decoding.picture_sizes import one_size
from internvl_chat.data.media.decoding.presentation import (
    check_size,
    frame_display,
    has_alpha,
    open_container,
    presented_frames,
    video_stream,
)
from internvl_chat.data.media.pictures import over_ground

# Where "no reference" means that no frame at all refers to it; in HEVC a higher temporal layer still may.
_MARKS_UNREFERENCED = frozenset({"h264"})
# Codecs in which a run of packets decodes to the same bits wherever decoding begins.
_SEEKABLE_CODECS = ONE_FRAME_A_PACKET - {"vp8", "gif"}
# Colours are converted in one thread, as frames are decoded: workers share the cores already. PyAV before 17 has no
# other way.
_ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


@dataclass(frozen=True)
class FrameIndex:
    """Presentation times, in the stream's unit and ascending: of every frame, and of those that start a run.

    Runs are closed: they cover the stream in decoding order as in time, so none needs a frame of another.
    """

    times: list[int]
    run_starts: list[int]

    def run_of(self, time: int) -> int:
        """When the run of a frame starts."""
        return self.run_starts[bisect_right(self.run_starts, time) - 1]


def build_index(packets: Sequence[PacketFacts], codec: str) -> FrameIndex | None:
    """Number the frames of a stream from its packets in decoding order.

    Returns:
        None where the packets do not tell which frame is which.
    """
    times = [packet.time for packet in packets if packet.time is not None and packet.usable and packet.is_shown]
    if codec not in _SEEKABLE_CODECS or not times or len(set(times)) < len(packets):
        return None
    # A stream that was cut out of a longer one may begin with frames that cannot be decoded, and so are not counted.
    if not packets[0].is_key or times[0] != min(times):
        return None
    latest_before = [times[0] - 1, *accumulate(times, max)]
    earliest_from = list(accumulate(reversed(times), min))[::-1]
    run_starts = [
        time
        for time, packet, before, after in zip(times, packets, latest_before, earliest_from, strict=False)
        if packet.is_key and before < time == after
    ]
    return FrameIndex(sorted(times), run_starts)


def rgb_frames(path: Path, numbers: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
    """Decode the frames of these numbers, strictly ascending, one after another.

    Yields:
        [H, W, 3] uint8, as a player shows them; where possible a view of the converted picture.
    Raises:
        UserError: the video cannot be decoded, is shown turned by an odd angle, or ends before a frame asked for.
    """
    done = 0
    try:
        with open_container(path) as container:
            stream = video_stream(path, container)
            stored_px = stream.codec_context.width, stream.codec_context.height
            for frame in _by_index(container, stream, numbers):
                check_size(path, frame, stored_px)
                yield _rgb(path, frame, stream)
                done += 1
        if done < len(numbers):
            with open_container(path) as container:
                stream = video_stream(path, container)
                for frame in _by_counting(path, container, stream, numbers[done:], stored_px):
                    yield _rgb(path, frame, stream)
    except (av.FFmpegError, IndexError, OSError) as error:
        raise UserError(f"{path}: cannot be decoded ({error})") from error


def _rgb(path: Path, frame: VideoFrame, stream: VideoStream) -> npt.NDArray[np.uint8]:
    """The frame as a player shows it."""
    display = frame_display(path, frame, stream)
    width_px, height_px = display.square_size(frame.width, frame.height)
    channels, name = (4, "rgba") if has_alpha(frame.format.name) else (3, "rgb24")
    picture = frame.reformat(width_px, height_px, format=name, **_ONE_THREAD)
    plane: Any = picture.planes[0]  # PyAV's annotations do not say that it is a buffer
    rows_HB = np.frombuffer(plane, np.uint8).reshape(picture.height, plane.line_size)
    pixels_HWC = rows_HB[:, : channels * picture.width].reshape(picture.height, picture.width, channels)
    return display.shown(pixels_HWC if channels == 3 else np.array(over_ground(Image.fromarray(pixels_HWC))))


def _by_counting(
    path: Path, container: InputContainer, stream: VideoStream, numbers: Sequence[int], stored_px: tuple[int, int]
) -> Iterator[VideoFrame]:
    wanted = iter(numbers)
    expected, count = next(wanted), 0
    for count, frame in enumerate(presented_frames(path, container, stream), start=1):
        # Those that are passed over too: frames behind a change are not read as if there were none.
        check_size(path, frame, stored_px)
        if count == expected + 1:
            yield frame
            following = next(wanted, None)
            if following is None:
                return
            expected = following
    raise UserError(f"{path}: ends after {count} frames, frame {expected + 1} was expected")


def _by_index(container: InputContainer, stream: VideoStream, numbers: Sequence[int]) -> Iterator[VideoFrame]:
    """The wanted frames, up to the first that does not come out as the index says."""
    if container.format.name not in TIMED_CONTAINERS or codec_name(stream) not in _SEEKABLE_CODECS:
        return
    packets = [facts_of(packet, stream.codec_context) for packet in container.demux(stream) if packet.size]
    if not one_size((packet.size_said for packet in packets), stream.codec_context.extradata or b""):
        return
    index = build_index(packets, codec_name(stream))
    if index is None or numbers[-1] >= len(index.times):
        return
    container.seek(index.times[0], stream=stream)
    wanted = [index.times[number] for number in numbers]
    expected = iter(wanted)
    time = next(expected)
    for frame in _decode_runs(container, stream, index, wanted):
        if frame.pts is None or frame.pts > time or frame.is_corrupt or frame.interlaced_frame:
            return
        if frame.pts == time:
            yield frame
            following = next(expected, None)
            if following is None:
                return
            time = following


def _decode_runs(
    container: InputContainer, stream: VideoStream, index: FrameIndex, wanted: Sequence[int]
) -> Iterator[VideoFrame]:
    """At least the wanted frames, in the order of time."""
    decoder = stream.codec_context
    run_starts, wanted_times = set(index.run_starts), set(wanted)
    last_wanted = {index.run_of(time): time for time in wanted}
    drops = codec_name(stream) in _MARKS_UNREFERENCED
    until: int | None = None
    for packet in container.demux(stream):
        if packet.pts in run_starts or not packet.size:
            if until is not None:
                yield from decoder.decode(None)
            decoder.flush_buffers()
            until = None if packet.pts is None else last_wanted.get(packet.pts)
        if until is None:
            continue
        decoder.skip_frame = "NONREF" if drops and packet.pts not in wanted_times else "DEFAULT"
        for frame in decoder.decode(packet):
            yield frame
            if frame.pts is not None and frame.pts >= until:
                until = None
                break
