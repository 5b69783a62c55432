"""What a decoder presents of a video: which stream, how many frames, when, and how they are turned.

Headers count packets, and not every packet is shown: edit lists hide some, a cut leaves some that cannot be decoded.
An MP4's index tells the common case apart without reading a frame's bytes; else the packets are read, and where they
do not tell, all frames are decoded once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from internvl_chat.contracts import UserError
from internvl_chat.data.media.decoding.left_undone import refuse_in_matroska, refuse_in_mp4
from internvl_chat.data.media.decoding.mp4_index import is_upright, movie_index, timeline_of_index
from internvl_chat.data.media.decoding.packets import (
    MATROSKA_CONTAINER,
    MOV_CONTAINER,
    ONE_FRAME_A_PACKET,
    TIMED_CONTAINERS,
    PacketFacts,
    codec_name,
    facts_of,
    stated_rate,
)
from internvl_chat.data.media.decoding.picture_sizes import one_size
from internvl_chat.data.media.display import Display, display_of_matrix, pixel_aspect_of
from internvl_chat.data.media.timeline import Timeline, timeline_of

# Nine hours at 30 frames a second, and then no further: whoever asks refuses it.
MAX_VIDEO_FRAMES = 1_000_000
# What FFmpeg calls lists of files, which may lie anywhere; and pictures that it takes for videos of one frame.
_LISTS = frozenset({"concat", "hls", "dash", "sdp", "rtsp", "imf", "ffmetadata"})
_PICTURES = frozenset({"image2", "ico", "psd", "tiff"})
# Times are rounded to a container's units; a frame that is left out doubles a step.
_EVEN_STEPS = 1.5
# Decoded timelines, of files that can be told in no cheaper way.
_KEPT_TIMELINES = 4096
# Names and comments in a file may be in any encoding; PyAV from 19 on takes them as they are.
_ANY_METADATA: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def open_container(path: Path) -> InputContainer:
    """A media file, open for reading.

    Raises:
        av.FFmpegError, OSError: it is no such file.
        UserError: it is a picture, or a list of other files, whatever its name says.
    """
    container = av.open(str(path), **_ANY_METADATA)
    name = container.format.name
    if name in _LISTS or name in _PICTURES or name.endswith("_pipe"):
        container.close()
        what = "a list of other files" if name in _LISTS else "a picture"
        raise UserError(f"{path}: holds {what}, expected a video")
    return container


@lru_cache
def has_alpha(pixel_format: str) -> bool:
    """Whether pixels of FFmpeg's format of this name say how transparent they are."""
    return any(component.is_alpha for component in av.VideoFormat(pixel_format).components)


def video_stream(path: Path, container: InputContainer) -> VideoStream:
    """The best video stream that is no cover picture, decoded in one thread: a loader's workers share the cores.

    Raises:
        UserError: there is none, it is of no known codec, or it has transparent parts that its decoder leaves out.
    """
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        what = "no video stream but a cover picture" if container.streams.video else "no video stream"
        raise UserError(f"{path}: has {what}")
    best = container.streams.best("video")
    stream = next((stream for stream in streams if stream is best), streams[0])
    if stream.codec_context is None:
        raise UserError(f"{path}: its video stream is of no known codec")
    if stream.metadata.get("alpha_mode") == "1" and not has_alpha(stream.codec_context.pix_fmt or "yuv420p"):
        raise UserError(f"{path}: has transparent parts, which are not read: encode it over a plain ground")
    stream.codec_context.thread_count = 1
    return stream


def frame_display(path: Path, frame: VideoFrame, stream: VideoStream) -> Display:
    """How this frame is shown.

    Raises:
        UserError: turned by an angle that is no quarter.
    """
    aspect = pixel_aspect_of(stream.sample_aspect_ratio)
    data = cast(Any, frame.side_data).get(SideDataType.DISPLAYMATRIX)
    if data is not None:
        try:
            turned = display_of_matrix(np.frombuffer(data, np.int32).tolist())
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        return Display(turned.swaps_axes, turned.flips_x, turned.flips_y, aspect)
    return Display(pixel_aspect=aspect)


def check_size(path: Path, frame: VideoFrame, stored_px: tuple[int, int]) -> None:
    """See to it that a frame is as large as the container says, and so as its boxes' picture.

    Raises:
        UserError: it is not.
    """
    if (frame.width, frame.height) != stored_px:
        raise UserError(
            f"{path}: changes its picture size from {stored_px[0]} x {stored_px[1]} to {frame.width} x {frame.height}; "
            "expected one size: encode it again"
        )


def read_presentation(path: Path, container: InputContainer, stream: VideoStream) -> tuple[Timeline, Display]:
    """The frames that are shown of a freshly opened video, and how.

    Raises:
        UserError: no frame can be decoded, the pictures change their size or are turned by an angle that is no quarter,
            or the container asks for what players do not agree upon.
    """
    upright = Display(pixel_aspect=pixel_aspect_of(stream.sample_aspect_ratio))
    stored_px = stream.codec_context.width, stream.codec_context.height
    index = movie_index(path) if container.format.name == MOV_CONTAINER else None
    if index is not None:
        refuse_in_mp4(path, index, stream.id, stored_px)
    elif container.format.name == MATROSKA_CONTAINER:
        refuse_in_matroska(path)
    timeline = None if index is None else timeline_of_index(path, index, container, stream)
    if index is not None and timeline is not None and is_upright(index):
        return timeline, upright
    if timeline is not None:
        container.seek(0)
        first = next(presented_frames(path, container, stream))
        check_size(path, first, stored_px)
        return timeline, frame_display(path, first, stream)
    if container.format.name in TIMED_CONTAINERS and codec_name(stream) in ONE_FRAME_A_PACKET:
        facts, shown = _scan(container, stream)
        times = presented_times(facts)
        is_one_size = one_size((fact.size_said for fact in facts), stream.codec_context.extradata or b"")
        if times is not None and shown is not None and is_one_size:
            check_size(path, shown, stored_px)
            timeline = timeline_of([float(t * (stream.time_base or 1)) for t in times], stated_rate(stream))
            return timeline, frame_display(path, shown, stream)
    state = os.stat(path)
    return _decoded_presentation(path, state.st_size, state.st_mtime_ns)


def presented_times(packets: list[PacketFacts]) -> list[int] | None:
    """The times of the frames that packets in decoding order are shown as, ascending; None if they do not tell."""
    times = sorted(packet.time for packet in packets if packet.is_shown and packet.time is not None)
    if not times or len(set(times)) < sum(packet.is_shown for packet in packets):
        return None
    first = packets[0]
    # A stream that was cut out of a longer one may begin with frames that cannot be decoded.
    if not all(p.usable for p in packets) or not first.is_key or first.time is None or times[0] < first.time:
        return None
    return times


def presented_frames(path: Path, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """All frames in the order they are shown, up to where a file was cut off.

    Raises:
        UserError: a packet that others follow cannot be decoded, or none can.
    """
    count, fault = 0, None
    for packet in container.demux(stream):
        if fault is not None and packet.size:
            break
        try:
            for frame in packet.decode():
                count += 1
                yield cast(VideoFrame, frame)
        except av.FFmpegError as error:
            if fault is not None:
                break
            fault = error
    else:
        if count:
            return
    raise UserError(f"{path}: cannot be decoded ({fault or 'it holds no frame'})")


def _scan(container: InputContainer, stream: VideoStream) -> tuple[list[PacketFacts], VideoFrame | None]:
    """The facts of all packets, and the first frame."""
    container.seek(0)
    facts: list[PacketFacts] = []
    first: VideoFrame | None = None
    for packet in container.demux(stream):
        if packet.size:
            facts.append(facts_of(packet, stream.codec_context))
        if first is None:
            first = next(iter(cast(list[VideoFrame], packet.decode())), None)
        if len(facts) > MAX_VIDEO_FRAMES:
            break
    return facts, first


@lru_cache(_KEPT_TIMELINES)
def _decoded_presentation(path: Path, size_bytes: int, changed_ns: int) -> tuple[Timeline, Display]:
    """The timeline and display of a video of this size and time of change, by decoding all of it."""
    with open_container(path) as container:
        stream = video_stream(path, container)
        stored_px = stream.codec_context.width, stream.codec_context.height
        display: Display | None = None
        times: list[int | None] = []
        for frame in presented_frames(path, container, stream):
            check_size(path, frame, stored_px)
            display = display or frame_display(path, frame, stream)
            times.append(frame.pts)
            if len(times) > MAX_VIDEO_FRAMES:
                break
        known = [time for time in times if time is not None]
        rate = stated_rate(stream)
        if len(known) < len(times) or any(after <= before for before, after in pairwise(known)):
            return Timeline(len(times), rate if _comes_evenly(path) else 0.0), display or Display()
        return timeline_of([float(t * (stream.time_base or 1)) for t in known], rate), display or Display()


def _comes_evenly(path: Path) -> bool:
    """Whether a video whose frames do not say when they are shown is at least decoded at an even rate.

    Bare streams say nothing, and AVI leaves out what it shows longer.
    """
    with open_container(path) as container:
        packets = container.demux(video_stream(path, container))
        times = [packet.dts for packet in packets if packet.size and packet.dts is not None]
    steps = {after - before for before, after in pairwise(times)}
    return bool(steps) and min(steps) > 0 and max(steps) <= _EVEN_STEPS * min(steps)
