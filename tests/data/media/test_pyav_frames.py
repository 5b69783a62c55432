"""Reading chosen frames gives the bits of a full decode, whatever the stream, and decodes less where that is safe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from internvl_chat.contracts import UserError
from internvl_chat.data.media.decoding import pyav_frames
from internvl_chat.data.media.decoding.pyav_frames import PacketFacts, build_index
from internvl_chat.data.media.video import read_frames
from tests.data.clips import decode_all, write_clip

NUM_FRAMES = 47
X264 = "libx264"
# Codec, container, the encoder's options, and whether frames are left undecoded.
STREAMS = {
    "usual": (X264, "mp4", {}, True),
    "short runs": (X264, "mkv", {"g": "9"}, True),
    "open groups": (X264, "mp4", {"b_strategy": "0", "x264-params": "open-gop=1:keyint=10:scenecut=0"}, True),
    "no reordering": (X264, "mp4", {"g": "9", "bf": "0"}, True),
    "gradual refresh": (X264, "mp4", {"x264-params": "intra-refresh=1:keyint=13"}, True),
    "interlaced": (X264, "mp4", {"flags": "+ildct+ilme", "x264-params": "tff=1:keyint=13"}, False),
    "transport stream": (X264, "ts", {"g": "9"}, False),
    "decoding times only": (X264, "avi", {"g": "9"}, False),
    "hevc, open groups": ("libx265", "mp4", {"x265-params": "keyint=13:log-level=none"}, True),
    "hevc, layers": ("libx265", "mp4", {"x265-params": "keyint=13:temporal-layers=3:log-level=none"}, True),
    "vp9, hidden frames": ("libvpx-vp9", "webm", {"g": "13", "lag-in-frames": "16", "cpu-used": "8"}, True),
    "vp8": ("libvpx", "webm", {"g": "13", "lag-in-frames": "16", "auto-alt-ref": "1"}, False),
    "mpeg4": ("mpeg4", "avi", {"g": "13", "bf": "2"}, False),
}


@pytest.mark.parametrize("name", STREAMS)
def test_chosen_frames_are_those_of_a_full_decode(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, suffix, options, decodes_less = STREAMS[name]
    path = write_clip(tmp_path / f"clip.{suffix}", NUM_FRAMES, codec, options)
    every = decode_all(path)
    assert len({frame.tobytes() for frame in every}) == len(every) == NUM_FRAMES
    counted: list[int] = []
    count = pyav_frames._by_counting

    def watched(*args: object) -> object:
        counted.append(1)
        return count(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(pyav_frames, "_by_counting", watched)
    rng = np.random.default_rng(8)
    choices = [np.sort(rng.choice(NUM_FRAMES, size, replace=False)) for size in (1, 1, 1, 2, 3, 5, 11)]
    for indices in [*choices, np.array([0]), np.array([NUM_FRAMES - 1]), np.arange(NUM_FRAMES)]:
        assert np.array_equal(read_frames(path, indices), every[indices]), indices
    assert len(counted) == (0 if decodes_less else 10)


def test_less_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "clip.mp4", NUM_FRAMES, X264, {"g": "9"})
    decoded: list[int] = []
    decode = pyav_frames._decode_runs

    def watched(*args: object) -> object:
        for frame in decode(*args):  # type: ignore[arg-type]
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(pyav_frames, "_decode_runs", watched)
    read_frames(path, np.array([1, 28]))
    assert 2 <= len(decoded) <= 6


def test_a_stream_cut_in_the_middle_of_a_frame(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", NUM_FRAMES, X264, {"g": "9"})
    every = decode_all(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    assert np.array_equal(read_frames(path, np.array([3, 14])), every[[3, 14]])
    with pytest.raises(UserError, match=r"clip.mkv: (ends after \d+ frames|cannot be decoded)"):
        read_frames(path, np.array([3, NUM_FRAMES - 1]))


def packets(*times: int | None, keys: tuple[int, ...] = (0,), unusable: tuple[int, ...] = ()) -> list[PacketFacts]:
    return [PacketFacts(t, i in keys, i not in unusable) for i, t in enumerate(times)]


def test_runs_begin_at_key_frames_that_nothing_reaches_over() -> None:
    index = build_index(packets(0, 4, 2, 6, 10, 8, 12, keys=(0, 3, 6)), "h264")
    assert index is not None
    assert (index.times, index.run_starts) == ([0, 2, 4, 6, 8, 10, 12], [0, 6, 12])
    assert [index.run_of(time) for time in (0, 4, 6, 10, 12)] == [0, 0, 6, 6, 12]
    opened = build_index(packets(0, 4, 2, 10, 6, 8, 12, keys=(0, 3, 6)), "h264")
    assert opened is not None and opened.run_starts == [0, 12]


@pytest.mark.parametrize(
    "facts",
    [
        [],
        packets(0, None, 2),
        packets(0, 2, 2),
        packets(0, 1, 2, keys=()),
        packets(2, 1, 3),
        packets(0, 1, 2, unusable=(1,)),
    ],
    ids=["none", "no time", "same time", "no key", "cut in", "damaged"],
)
def test_packets_that_do_not_number_the_frames(facts: list[PacketFacts]) -> None:
    assert build_index(facts, "h264") is None


def test_packets_of_a_codec_that_hides_frames() -> None:
    assert build_index(packets(0, 1, 2), "vp9") is not None
    assert build_index(packets(0, 1, 2), "vp8") is None
