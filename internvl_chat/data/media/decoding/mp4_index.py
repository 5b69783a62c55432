"""What an MP4's index tells of its frames, which in the common case is all that has to be read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from internvl_chat.data.media.decoding.packets import codec_name, stated_rate, unit_prefix_bytes
from internvl_chat.data.media.decoding.picture_sizes import one_size, size_said, units_of
from internvl_chat.data.media.timeline import Timeline

if TYPE_CHECKING:
    # PyAV before 17 has none.
    from av.index import IndexEntry

# Codecs of which an MP4's index is believed; a picture takes more bytes than this.
_INDEXED_CODECS, _SMALLEST_PICTURE_BYTES = frozenset({"h264", "hevc", "av1"}), 12
# Where the matrix lies behind the type of its box, by the box's version. Source: ISO/IEC 14496-12, 8.2.2 and 8.3.2.
_MATRIX_PLACES = {b"mvhd": (40, 52), b"tkhd": (44, 56)}
# What is said of a picture before its own data.
_HEAD_BYTES = 512
_UPRIGHT = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
_MOST_INDEX_BYTES = 2**28


def movie_index(path: Path) -> bytes | None:
    """An MP4's `moov` box, which says where its samples lie, when they come, and how they are turned.

    Source: ISO/IEC 14496-12, 4.2 (boxes).
    """
    size = os.stat(path).st_size
    with path.open("rb") as file:
        at = 0
        while at + 8 <= size:
            file.seek(at)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:], "big")
            if kind == b"moov" and length <= _MOST_INDEX_BYTES:
                file.seek(at)
                return file.read(length or size - at)
            if length < 8:
                return None
            at += length
    return None


def is_upright(index: bytes) -> bool:
    """Whether every matrix in an MP4's header is that of an upright picture; cheaper than decoding a frame."""
    found = 0
    for kind, places in _MATRIX_PLACES.items():
        at = index.find(kind)
        while at >= 0:
            found += 1
            start = at + places[index[at + 4 : at + 5] == b"\1"]
            if index[start : start + len(_UPRIGHT)] != _UPRIGHT:
                return False
            at = index.find(kind, at + 4)
    return found > 1


def timeline_of_index(path: Path, index: bytes, container: InputContainer, stream: VideoStream) -> Timeline | None:
    """The timeline of an MP4 whose index shows that every sample becomes a frame, at an even rate."""
    if codec_name(stream) not in _INDEXED_CODECS or not stream.time_base:
        return None
    # PyAV has it from 17 on; before that the packets tell.
    entries = list(getattr(stream, "index_entries", ()))
    if not entries or len(entries) != stream.frames:
        return None
    if any(entry.is_discard or entry.size < _SMALLEST_PICTURE_BYTES for entry in entries):
        return None
    steps = {after.timestamp - before.timestamp for before, after in pairwise(entries)}
    if len(steps) > 1 or max(entry.pos + entry.size for entry in entries) > os.stat(path).st_size:
        return None
    if steps and not _is_shown_evenly(index, len(entries), next(iter(steps))):
        return None
    if not _is_one_size(path, stream, entries) or not _begins_with_its_first_frame(container, stream):
        return None
    rate = float(1 / (steps.pop() * stream.time_base)) if steps else stated_rate(stream)
    return Timeline(len(entries), rate)


def _is_one_size(path: Path, stream: VideoStream, entries: Sequence[IndexEntry]) -> bool:
    """Whether the pictures that decoding can begin with say the same of their size, of an MP4."""
    codec, extradata = codec_name(stream), stream.codec_context.extradata or b""
    prefix_bytes = unit_prefix_bytes(extradata, codec)
    with path.open("rb") as file:
        descriptor = file.fileno()
        heads = (
            os.pread(descriptor, min(entry.size, _HEAD_BYTES), entry.pos) for entry in entries if entry.is_keyframe
        )
        said = (size_said(head, codec, units_of(head, codec, prefix_bytes)) for head in heads)
        return one_size(said, extradata)


def _begins_with_its_first_frame(container: InputContainer, stream: VideoStream) -> bool:
    """Whether nothing is shown before the first packet; later ones are looked at as long as they could be."""
    first: int | None = None
    for packet in container.demux(stream):
        if packet.pts is None or packet.dts is None:
            return not packet.size and first is not None
        first = packet.pts if first is None else first
        if packet.pts < first:
            return False
        if packet.dts >= first:
            return True
    return first is not None


def _is_shown_evenly(index: bytes, num_samples: int, step: int) -> bool:
    """Whether samples that are decoded every `step` are shown every `step` too, in whatever order.

    Tables of composition offsets say by how much a sample is shown later than it is decoded; without one it is not.

    Source: ISO/IEC 14496-12, 8.6.1.3.
    """
    at = index.find(b"ctts")
    while at >= 0:
        num_runs = int.from_bytes(index[at + 8 : at + 12], "big")
        if at >= 4 and int.from_bytes(index[at - 4 : at], "big") == 16 + 8 * num_runs <= len(index) - at + 4:
            runs = np.frombuffer(index, ">i4", 2 * num_runs, at + 12).reshape(-1, 2).astype(np.int64)
            if runs[:, 0].sum() == num_samples:
                shown = np.sort(np.arange(num_samples) * step + np.repeat(runs[:, 1], runs[:, 0]))
                if (np.diff(shown) != step).any():
                    return False
        at = index.find(b"ctts", at + 4)
    return True
