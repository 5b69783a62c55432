"""Whether the pictures of a video may change their size behind the first one, told from its packets undecoded.

What a packet says of the size is not read, only compared: where it is said in other words, all frames are decoded once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# Where the type of a unit stands in its first byte, shift and mask, and the type of those that say the size.
_TYPE_BITS = {"h264": (0, 0x1F), "hevc": (1, 0x3F)}
_PARAMETERS = {"h264": 7, "hevc": 33}
_AV1_SEQUENCE = 1
# A unit of H.264 or HEVC: its type, and all of it.
Unit = tuple[int, memoryview]
_VP9_SYNC = 0x498342


def units_of(data: bytes, codec: str, prefix_bytes: int) -> list[Unit]:
    """The units of a packet, each behind its length; none in other codecs, or where they are marked in another way.

    Args:
        data: the packet, or its beginning.
        codec: as FFmpeg calls it.
        prefix_bytes: size of the length before each unit.
    """
    if codec not in _TYPE_BITS or not prefix_bytes:
        return []
    shift, mask = _TYPE_BITS[codec]
    units, whole, start = [], memoryview(data), 0
    while start + prefix_bytes < len(data):
        unit = start + prefix_bytes
        start = unit + int.from_bytes(whole[start:unit], "big")
        if start > unit:
            units.append((data[unit] >> shift & mask, whole[unit:start]))
    return units


def size_said(data: bytes, codec: str, units: Sequence[Unit]) -> bytes:
    """The part of a packet that says how large its picture is; empty where it is as large as those before it.

    Args:
        data: the packet, or so much of its beginning that all but its picture is in it.
        codec: as FFmpeg calls it.
        units: those of the packet, in H.264 and HEVC.

    Source: ITU-T H.264, table 7-1; ITU-T H.265, table 7-1; RFC 6386, 9.1; VP9 bitstream specification, 7.2; AV1
    bitstream specification, 5.3.
    """
    if codec in _PARAMETERS:
        return b"".join(unit for kind, unit in units if kind == _PARAMETERS[codec])
    if codec == "vp8":
        return b"" if data[:1] == b"" or data[0] & 1 else data[6:10]
    if codec == "vp9":
        return _said_in_vp9(data)
    return _said_in_av1(data) if codec == "av1" else b""


def one_size(said: Iterable[bytes], extradata: bytes) -> bool:
    """Whether all that packets say of the size is the same.

    Args:
        said: of packets in decoding order.
        extradata: what the container says before them, which counts where the first packet says nothing.
    """
    packets = iter(said)
    first = next(packets, b"")
    return all(not later or (later == first if first else later in extradata) for later in packets)


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, count: int) -> int:
        """The next bits as a number; zeros behind the end."""
        self._left -= count
        at = self._value >> self._left if self._left >= 0 else self._value << -self._left
        return at & ((1 << count) - 1)


def _said_in_vp9(data: bytes) -> bytes:
    """The size of a picture that can stand alone, or of one that is not as large as one it is predicted from."""
    # Two bytes more than the longest header before the size takes.
    bits = _Bits(data[:24])
    bits.read(2)
    profile = bits.read(1) | bits.read(1) << 1
    if profile == 3:
        bits.read(1)
    if bits.read(1):
        return b""
    is_predicted, is_shown, resists_errors = (bits.read(1) for _ in range(3))
    is_alone = not is_predicted
    if is_predicted:
        is_alone = bool(not is_shown and bits.read(1))
        if not resists_errors:
            bits.read(2)
    if not is_alone:
        bits.read(8 + 3 * 4)
        if any(bits.read(1) for _ in range(3)):
            return b""
    elif bits.read(24) != _VP9_SYNC:
        return b"?"
    elif not is_predicted or profile:
        _skip_vp9_colour(bits, profile)
    if is_alone and is_predicted:
        bits.read(8)
    return bits.read(32).to_bytes(4, "big")


def _skip_vp9_colour(bits: _Bits, profile: int) -> None:
    """Source: VP9 bitstream specification, 6.2.2."""
    if profile >= 2:
        bits.read(1)
    is_rgb = bits.read(3) == 7
    if not is_rgb:
        bits.read(1)
    if profile in (1, 3):
        bits.read(1 if is_rgb else 3)


def _said_in_av1(data: bytes) -> bytes:
    """The sequence headers of a packet; one whose units do not say where they end says something else than others."""
    start, found = 0, b""
    while start < len(data):
        head = data[start]
        at = start + (2 if head & 4 else 1)
        if not head & 2:
            return found + data[start : start + 16] if head >> 3 & 15 == _AV1_SEQUENCE else found
        size = shift = 0
        while at < len(data):
            size |= (data[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if not data[at - 1] & 0x80:
                break
        if head >> 3 & 15 == _AV1_SEQUENCE:
            found += data[at : at + size]
        start = at + size
    return found
