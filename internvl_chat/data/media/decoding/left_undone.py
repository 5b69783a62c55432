"""What containers ask of players beside decoding, and of which players do not agree: videos that ask it are refused.

A crop beside the codec's own, gaps between the parts of an edit list, and parts at another speed. FFmpeg's players and
Apple's follow some of these, browsers and OpenCV others, so that nobody can say what a box was counted in.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from internvl_chat.contracts import UserError

# Where something lies in a file's bytes: from here, up to there.
Span = tuple[int, int]

# Fields of a visual sample entry before the boxes inside it. Source: ISO/IEC 14496-12, 12.1.3.
_SAMPLE_ENTRY_BYTES = 78
# What describes a Matroska file's tracks lies before its frames, within so many bytes.
_MOST_HEAD_BYTES = 2**20
# Source: RFC 9559, 5.1; what is cut off at the sides is named bottom, top, left, right.
_SEGMENT, _CLUSTER, _TRACKS, _ENTRY, _VIDEO = 0x18538067, 0x1F43B675, 0x1654AE6B, 0xAE, 0xE0
_WIDTH, _HEIGHT, _BOTTOM, _TOP, _LEFT, _RIGHT = 0xB0, 0xBA, 0x54AA, 0x54BB, 0x54CC, 0x54DD


def refuse_in_mp4(path: Path, index: bytes, track_id: int, stored_px: tuple[int, int]) -> None:
    """Refuse an MP4 whose `moov` box, `index`, asks for what is left undone of the track of this number.

    Raises:
        UserError: it does; the message says what, and what to do.
    """
    for track in _inside(index, (8, len(index)), b"trak"):
        if _track_id(index, track) != track_id:
            continue
        for start, end in _inside(index, track, b"edts", b"elst"):
            _check_edits(path, index[start:end])
        for start, end in _inside(index, track, b"mdia", b"minf", b"stbl", b"stsd"):
            for _, (first, last) in _boxes(index, (start + 8, end)):
                for crop, _ in _inside(index, (first + _SAMPLE_ENTRY_BYTES, last), b"clap"):
                    # Source: ISO/IEC 14496-12, 12.1.4.
                    width, width_by, height, height_by = struct.unpack_from(">4i", index.ljust(crop + 16, b"\0"), crop)
                    if width_by > 0 and height_by > 0:
                        _check_crop(path, (width / width_by, height / height_by), stored_px)


def refuse_in_matroska(path: Path) -> None:
    """Refuse a Matroska or WebM file that asks for a crop of its pictures.

    Raises:
        UserError: it does; the message says what, and what to do.
    """
    with path.open("rb") as file:
        head = file.read(_MOST_HEAD_BYTES)
    for video in _elements(head, (0, len(head)), _SEGMENT, _TRACKS, _ENTRY, _VIDEO):
        said = {kind: int.from_bytes(head[start:end], "big") for kind, (start, end) in _children(head, video)}
        width_px, height_px = said.get(_WIDTH, 0), said.get(_HEIGHT, 0)
        shown = (
            width_px - said.get(_LEFT, 0) - said.get(_RIGHT, 0),
            height_px - said.get(_TOP, 0) - said.get(_BOTTOM, 0),
        )
        _check_crop(path, shown, (width_px, height_px))


def _check_crop(path: Path, shown_px: tuple[float, float], stored_px: tuple[int, int]) -> None:
    if shown_px != stored_px:
        raise UserError(
            f"{path}: its container asks for {shown_px[0]:g} x {shown_px[1]:g} of the {stored_px[0]} x {stored_px[1]} "
            "pixels to be shown, which some players do and others do not: encode it again as it is meant to be seen"
        )


def _check_edits(path: Path, edits: bytes) -> None:
    """Source: ISO/IEC 14496-12, 8.6.6. A gap before the first part only delays the whole video."""
    form = ">Qqhh" if edits[:1] == b"\1" else ">Iihh"
    entries = list(struct.iter_unpack(form, edits[8 : len(edits) - (len(edits) - 8) % struct.calcsize(form)]))
    parts = [number for number, (_, media_time, _, _) in enumerate(entries) if media_time >= 0]
    for duration, media_time, rate, fraction in entries[parts[0] : parts[-1] + 1] if parts else ():
        if media_time >= 0 and (rate, fraction) == (1, 0):
            continue
        if media_time < 0 and not duration:
            continue
        speed = rate + fraction / 2**16
        asks = f"plays a part at {speed:g} times the speed" if media_time >= 0 else "leaves a gap between its parts"
        raise UserError(f"{path}: its edit list {asks}, which some players do and others do not: encode it again")


def _track_id(index: bytes, track: Span) -> int:
    for start, _ in _inside(index, track, b"tkhd"):
        at = start + (20 if index[start : start + 1] == b"\1" else 12)
        return int.from_bytes(index[at : at + 4], "big")
    return -1


def _boxes(data: bytes, span: Span) -> Iterator[tuple[bytes, Span]]:
    """The boxes of a part of an MP4 by kind, each with where its content lies. Source: ISO/IEC 14496-12, 4.2."""
    at, end = span
    while at + 8 <= end and (length := int.from_bytes(data[at : at + 4], "big")) >= 8:
        yield data[at + 4 : at + 8], (at + 8, min(at + length, end))
        at += length


def _inside(data: bytes, span: Span, kind: bytes, *deeper: bytes) -> Iterator[Span]:
    """Where the content of all boxes on a path of kinds lies."""
    for found, content in _boxes(data, span):
        if found == kind:
            yield from _inside(data, content, *deeper) if deeper else [content]


def _elements(data: bytes, span: Span, kind: int, *deeper: int) -> Iterator[Span]:
    """Where the content of all Matroska elements on a path of kinds lies."""
    for found, content in _children(data, span):
        if found == kind:
            yield from _elements(data, content, *deeper) if deeper else [content]


def _children(data: bytes, span: Span) -> Iterator[tuple[int, Span]]:
    """The elements of a part of a Matroska file by kind, up to its frames, each with where its content lies.

    Source: RFC 8794, 5 and 6: kinds and sizes are numbers as long as their first byte says; a size of ones is unknown.
    """
    at, end = span
    while at < end:
        kind_bytes = _length_of(data, at)
        kind = int.from_bytes(data[at : at + kind_bytes], "big")
        at += kind_bytes
        size_bytes = _length_of(data, at)
        size = int.from_bytes(data[at : at + size_bytes], "big") - (1 << 7 * size_bytes)
        at += size_bytes
        if at > end or kind == _CLUSTER or not kind_bytes or not size_bytes:
            return
        is_unknown = size == (1 << 7 * size_bytes) - 1
        stop = end if is_unknown else min(at + size, end)
        yield kind, (at, stop)
        at = stop


def _length_of(data: bytes, at: int) -> int:
    """How many bytes the number has that begins here; 0 where none does."""
    return 9 - data[at].bit_length() if at < len(data) and data[at] else 0
