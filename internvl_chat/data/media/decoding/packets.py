"""What a video's packets tell undecoded: when each is shown, whether decoding can begin with it, what shows nothing."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from internvl_chat.data.media.decoding.picture_sizes import size_said, units_of

# Containers that store when a frame is shown, as FFmpeg calls them; AVI has decoding times only.
MOV_CONTAINER = "mov,mp4,m4a,3gp,3g2,mj2"
MATROSKA_CONTAINER = "matroska,webm"
TIMED_CONTAINERS = frozenset({MOV_CONTAINER, MATROSKA_CONTAINER, "gif"})
# Codecs whose packets become one frame each, or tell that they show none: no packet holds two.
ONE_FRAME_A_PACKET = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "gif"})

_IDR_UNIT = 5
_PICTURE_UNITS = {"h264": range(1, 6), "hevc": range(32)}


@dataclass(frozen=True)
class PacketFacts:
    """What is known of a packet undecoded.

    `is_key`: no later packet needs an earlier one; `usable`: it is not damaged; `is_shown`: it holds a picture, and no
    edit list leaves it out; `size_said`: what it says of its picture's size.
    """

    time: int | None
    is_key: bool
    usable: bool = True
    is_shown: bool = True
    size_said: bytes = b""


def codec_name(stream: VideoStream) -> str:
    """What FFmpeg calls the codec, whichever library decodes it."""
    return stream.codec_context.codec.canonical_name


def stated_rate(stream: VideoStream) -> float:
    """Frames a second as the container says, 0 where it does not."""
    return float(stream.average_rate or 0)


def facts_of(packet: Packet, decoder: VideoCodecContext) -> PacketFacts:
    """The facts of one packet of a stream."""
    codec, data = decoder.codec.canonical_name, bytes(packet)
    units = units_of(data, codec, unit_prefix_bytes(decoder.extradata or b"", codec))
    types = {kind for kind, _ in units}
    is_key = packet.is_keyframe
    if is_key and codec == "h264":
        # Containers also mark pictures that decoding can be joined at, but is not exact from at once.
        is_key = _IDR_UNIT in types
    is_shown = _shows_picture(data, codec, types) and not packet.is_discard
    said = _next_description(packet) or size_said(data, codec, units)
    return PacketFacts(packet.pts, is_key, not packet.is_corrupt, is_shown, said)


def _next_description(packet: Packet) -> bytes:
    """What an MP4 with several descriptions of its samples hands over where the next one begins to count.

    PyAV before 16 does not tell: there a change of size is seen when frames are decoded.
    """
    tells = getattr(packet, "has_sidedata", None)
    return bytes(packet.get_sidedata("new_extradata")) if tells and tells("new_extradata") else b""


def unit_prefix_bytes(extradata: bytes, codec: str) -> int:
    """Size of the length before each unit of a packet; 0 where units are marked in another way.

    Source: ISO/IEC 14496-15, 5.3.3.1 and 8.3.3.1.
    """
    place = {"h264": 4, "hevc": 21}.get(codec, 0)
    if not place or len(extradata) <= place or extradata[0] != 1:
        return 0
    return (extradata[place] & 3) + 1


def _shows_picture(data: bytes, codec: str, types: Set[int]) -> bool:
    """Whether a packet, with units of these types, holds a picture that is shown; True where that cannot be told.

    Source: ITU-T H.264, table 7-1 (slices are units 1 to 5); ITU-T H.265, table 7-1 (0 to 31); RFC 6386, 9.1; VP9
    bitstream specification, 6.2 and annex B (a superframe ends in a picture that is shown).
    """
    if types:
        return not types.isdisjoint(_PICTURE_UNITS[codec])
    if codec == "vp8":
        return bool(data[0] & 0x10)
    if codec == "vp9" and data[-1] & 0xE0 != 0xC0:
        first = data[0] << 1 if data[0] & 0x30 == 0x30 else data[0]
        return bool(first & 0x08 or first & 0x02)
    return True
