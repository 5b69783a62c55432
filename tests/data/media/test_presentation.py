"""What is shown of a video is what a player shows: its frames, their times, and which way up they are."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from internvl_chat.contracts import Sample, TrackRows, UserError
from internvl_chat.data.media.decoding import presentation
from internvl_chat.data.media.decoding.packets import PacketFacts, facts_of
from internvl_chat.data.media.decoding.presentation import presented_times
from internvl_chat.data.media.sources import read_media_header, read_pictures
from internvl_chat.data.media.timeline import Timeline
from internvl_chat.data.media.video import read_frames, read_header
from internvl_chat.data.records.tracks import boxes_at
from tests.data.clips import write_clip
from tests.data.media.films import (
    SQUARE_PX,
    STORED_PX,
    TICKS,
    edit,
    plainly_decoded,
    red_part,
    square_at,
    with_clean_aperture,
    with_edits,
    write_film,
)

EVEN = list(range(0, 240, 10))
QUARTERS = list(itertools.product((0, 90, 180, 270), (False, True), (False, True)))
drawn = settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def film_of(path: Path) -> Sample:
    return Sample("film", (), "a.jsonl:1", video_path=path)


def stored_track(numbers: list[int], in_pixels: bool) -> TrackRows:
    """Where the square is in the stored frames of these numbers."""
    corners = np.array([[x, y, x + SQUARE_PX, y + SQUARE_PX] for x, y in map(square_at, numbers)], float)
    if not in_pixels:
        corners /= np.tile(STORED_PX, 2)
    positions = np.arange(len(numbers), dtype=float)
    return TrackRows("square", positions, corners, in_pixels=in_pixels, is_complete=True, in_stored=True)


def assert_boxes_lie_on_the_square(path: Path, numbers: list[int], in_pixels: bool = True) -> None:
    """Boxes counted in the stored picture, turned with it, are where the red is in the shown one."""
    indices = np.array([0, len(numbers) // 2, len(numbers) - 1])
    header = read_media_header(film_of(path))
    boxes = boxes_at(stored_track(numbers, in_pixels), indices, header, "here")
    for picture, box in zip(read_pictures(film_of(path), indices), boxes, strict=True):
        assert picture.shape[:2] == header.sizes_px[0][::-1]
        assert np.abs(np.array(red_part(picture)) * 1000 - box).max() < 30


@pytest.mark.parametrize("turn", QUARTERS)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_turned_and_mirrored_films_are_shown_as_players_do(
    turn: tuple[float, bool, bool], suffix: str, tmp_path: Path
) -> None:
    path = write_film(tmp_path / f"film.{suffix}", EVEN[:5], turn=turn)
    width_px, height_px = STORED_PX
    assert read_header(path).size_px == ((height_px, width_px) if turn[0] in (90, 270) else (width_px, height_px))
    assert_boxes_lie_on_the_square(path, list(range(5)))


def test_a_quarter_against_the_clock_brings_the_right_edge_up(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4", EVEN[:3], turn=(90, False, False))
    x, y = square_at(0)
    top = (STORED_PX[0] - x - SQUARE_PX) / STORED_PX[0]
    left, shown_top, _, _ = red_part(read_frames(path, np.array([0]))[0])
    assert abs(left - y / STORED_PX[1]) < 0.03 and abs(shown_top - top) < 0.03


@drawn
@given(scale=st.sampled_from([1 << 15, 1 << 16, 3 << 16]), turn=st.sampled_from(range(8)), tilt=st.integers(0, 40))
def test_any_matrix_is_followed_or_refused(
    scale: int, turn: int, tilt: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("films") / "film.mkv"
    if tilt > 20:
        write_film(path, EVEN[:2], turn=(tilt, False, False))
        with pytest.raises(UserError, match=rf"film.mkv: its display matrix turns it by -?{tilt} degrees"):
            read_header(path)
        return
    x, y = (-scale if turn & 1 else scale), (-scale if turn & 2 else scale)
    matrix = [0, y, 0, x, 0] if turn & 4 else [x, 0, 0, 0, y]
    write_film(path, EVEN[:3], matrix=[*matrix, 0, 0, 0, 1 << 30])
    assert_boxes_lie_on_the_square(path, [0, 1, 2])


@pytest.mark.parametrize(
    ("aspect", "size"), [(Fraction(4, 3), (213, 96)), (Fraction(8, 9), (160, 108)), (Fraction(161, 160), (160, 96))]
)
def test_pixels_that_are_not_square_are_made_so(aspect: Fraction, size: tuple[int, int], tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4", EVEN[:3], pixel_aspect=aspect)
    assert read_header(path).size_px == size
    assert_boxes_lie_on_the_square(path, [0, 1, 2])


def test_other_backends_are_refused_where_they_show_another_picture(tmp_path: Path) -> None:
    turned = write_film(tmp_path / "turned.mp4", EVEN[:4], turn=(90, False, False))
    trimmed = edit(write_film(tmp_path / "trimmed.mp4", EVEN, options={"bf": "0"}), 0.1, 0.3)
    for path, reason in ((turned, "turned, mirrored"), (trimmed, "12 frames are shown, it counts 24")):
        with pytest.raises(UserError, match=f"{path.name}: --video_backend decord cannot read it right: .*{reason}"):
            read_frames(path, np.array([0]), "decord")


def test_what_players_do_not_agree_upon_is_refused(tmp_path: Path) -> None:
    for edits, said in (
        ([(100, 0, 1), (100, -1, 1), (100, 0.2, 1)], "leaves a gap between its parts"),
        ([(100, 0, 1), (100, 0.1, 0)], "plays a part at 0 times the speed"),
        ([(200, 0, 2)], "plays a part at 2 times the speed"),
    ):
        path = with_edits(write_film(tmp_path / "edited.mp4", EVEN), *edits)
        with pytest.raises(UserError, match=f"edited.mp4: its edit list {said}.*encode it again"):
            read_header(path)
    late = with_edits(write_film(tmp_path / "late.mp4", EVEN, options={"bf": "0"}), (500, -1, 1), (200, 0.1, 1))
    assert read_header(late).timeline == Timeline(12, 60)
    assert plainly_decoded(late)[0] == list(range(6, 18))

    crop = "asks for 128 x 96 of the 160 x 96 pixels"
    cropped = with_clean_aperture(write_film(tmp_path / "cropped.mp4", EVEN[:3]), 128, 96)
    matroska = write_film(tmp_path / "cropped.mkv", EVEN[:3])
    unit, right = bytes.fromhex("54b28104"), bytes.fromhex("54dd8120")  # DisplayUnit and PixelCropRight, as long
    assert matroska.read_bytes().count(unit) == 1
    matroska.write_bytes(matroska.read_bytes().replace(unit, right))
    for path in (cropped, matroska):
        with pytest.raises(UserError, match=f"{path.name}: its container {crop}"):
            read_header(path)
    with pytest.raises(UserError, match=crop):
        read_frames(cropped, np.array([0]), "decord")
    whole = with_clean_aperture(write_film(tmp_path / "whole.mp4", EVEN[:3]), *STORED_PX)
    assert_boxes_lie_on_the_square(whole, [0, 1, 2])


def test_a_rate_is_told_only_where_the_file_tells_it(tmp_path: Path) -> None:
    even = write_film(tmp_path / "even.avi", EVEN[:12], options={"bf": "2"})
    assert read_header(even).timeline.frames_per_second > 0
    uneven = write_film(tmp_path / "uneven.avi", [*EVEN[:6], 400, 900, 910], options={"bf": "2"})
    bare = write_film(tmp_path / "bare.h264", EVEN[:6])
    for path, count in ((uneven, 9), (bare, 6)):
        assert read_header(path).timeline == Timeline(count)


@pytest.mark.parametrize("has_film", [True, False])
def test_a_cover_picture_is_passed_over(has_film: bool, tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", EVEN[:6])
    path = tmp_path / "song.mp4"
    with av.open(str(film)) as source, av.open(str(path), "w") as target:
        cover = target.add_stream("mjpeg", rate=1)
        cover.codec_context.thread_count = 1
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 64, 64, "yuvj420p", Disposition.attached_pic
        template = source.streams.video[0]
        stream = target.add_stream_from_template(template) if has_film else target.add_stream("aac", rate=8000)
        target.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")))
        target.mux(cover.encode())
        for packet in source.demux(template) if has_film else ():
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    if has_film:
        assert read_header(path).num_frames == 6
        assert_boxes_lie_on_the_square(path, list(range(6)))
    else:
        with pytest.raises(UserError, match=r"song.mp4: has no video stream but a cover picture"):
            read_header(path)


@drawn
@given(
    steps=st.lists(st.sampled_from([10, 10, 10, 20, 35, 600]), min_size=2, max_size=30),
    suffix=st.sampled_from(["mp4", "mkv"]),
    reordered=st.booleans(),
)
# Uneven where an index of decoding times is even: reordered frames are shown later than the times say.
@example(steps=[20, 20, 10, 10], suffix="mp4", reordered=True)
@example(steps=[10, 10, 10, 20], suffix="mp4", reordered=True)
@example(steps=[10] * 20, suffix="mp4", reordered=True)
def test_any_pattern_of_times_is_read_as_it_is_decoded(
    steps: list[int], suffix: str, reordered: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    times = [0, *itertools.accumulate(steps)]
    path = tmp_path_factory.mktemp("films") / f"film.{suffix}"
    write_film(path, times, options={"bf": "3" if reordered else "0", "preset": "ultrafast", "g": "7"})
    _, seconds = plainly_decoded(path)
    timeline = read_header(path).timeline
    assert timeline.num_frames == len(times) == len(seconds)
    assert np.abs(timeline.seconds_of(np.arange(len(times))) - seconds).max() < 0.02
    every = np.arange(len(times))
    assert np.array_equal(timeline.nearest(timeline.seconds_of(every)), every)
    by_second = TrackRows("square", np.array(times) / TICKS, stored_track(every.tolist(), False).corners, "second")
    by_frame = TrackRows("square", every.astype(float), by_second.corners)
    header = read_media_header(film_of(path))
    assert np.array_equal(*(boxes_at(track, every, header, "here") for track in (by_second, by_frame)))


@drawn
@given(
    first=st.integers(0, 20),
    length=st.integers(2, 24),
    reordered=st.booleans(),
    key_distance=st.sampled_from(["5", "500"]),
)
def test_any_edit_list_is_followed(
    first: int, length: int, reordered: bool, key_distance: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    options = {"bf": "2" if reordered else "0", "g": key_distance, "crf": "5", "preset": "ultrafast"}
    path = write_film(tmp_path_factory.mktemp("films") / "film.mp4", EVEN, options=options)
    edit(path, first / 60, min(24, first + length) / 60)
    numbers, _ = plainly_decoded(path)
    assert read_header(path).num_frames == len(numbers)
    assert_boxes_lie_on_the_square(path, numbers)


def test_frames_of_a_cut_through_open_groups_are_those_that_can_be_decoded(tmp_path: Path) -> None:
    groups = "open-gop=1:keyint=12:min-keyint=12:bframes=4:b-adapt=0:scenecut=0"
    options = {"x265-params": f"{groups}:crf=4:pools=none:frame-threads=1:log-level=none"}
    whole = write_film(tmp_path / "whole.mkv", list(range(0, 480, 10)), codec="libx265", options=options)
    for suffix in ("mkv", "mp4"):
        path = tmp_path / f"cut.{suffix}"
        with av.open(str(whole)) as source, av.open(str(path), "w") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            keys = 0
            for packet in source.demux(source.streams.video[0]):
                keys += packet.is_keyframe
                if packet.size and keys > 1:
                    packet.stream = stream
                    target.mux(packet)
        numbers, seconds = plainly_decoded(path)
        timeline = read_header(path).timeline
        assert timeline.num_frames == len(numbers) < 48
        assert np.abs(timeline.seconds_of(np.arange(len(numbers))) - seconds).max() < 0.02
        assert_boxes_lie_on_the_square(path, numbers)


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mkv", "libx264"), ("avi", "mpeg4"), ("webm", "libvpx"), ("ts", "libx264")]
)
def test_a_file_that_was_cut_off_has_the_frames_before_the_cut(suffix: str, codec: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / f"film.{suffix}", 24, codec, {"g": "4"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    count = read_header(path).num_frames
    assert 3 < count < 24
    assert len(read_frames(path, np.arange(count))) == count
    with pytest.raises(UserError, match=rf"film.{suffix}: (ends after|cannot be decoded)"):
        read_frames(path, np.array([count]))


@pytest.mark.parametrize(
    ("codec", "extradata", "content", "is_shown"),
    [
        ("vp8", b"", b"\x10\x00\x00", True),
        ("vp8", b"", b"\x00\x00\x00", False),
        ("vp9", b"", b"\x86\x00\x00", True),
        ("vp9", b"", b"\x84\x00\x00", False),
        ("vp9", b"", b"\x84\x00\xc1", True),  # a superframe
        ("vp9", b"", b"\x88\x00\x00", True),  # shows a frame that came before
        ("h264", b"\x01\x64\x00\x0a\xff", b"\x00\x00\x00\x02\x09\x10\x00\x00\x00\x02\x41\x9a", True),
        ("h264", b"\x01\x64\x00\x0a\xff", b"\x00\x00\x00\x02\x09\x10\x00\x00\x00\x02\x06\x9a", False),
        ("hevc", b"\x01" + b"\xff" * 22, b"\x00\x00\x00\x03\x02\x01\xd0", True),
        ("hevc", b"\x01" + b"\xff" * 22, b"\x00\x00\x00\x03\x4e\x01\xd0", False),
    ],
)
def test_packets_that_show_nothing_are_known(codec: str, extradata: bytes, content: bytes, is_shown: bool) -> None:
    decoder = av.CodecContext.create(codec, "r")
    decoder.extradata = extradata or None
    assert facts_of(av.Packet(content), decoder).is_shown == is_shown


def test_times_of_packets() -> None:
    def facts(*times: int | None, hidden: tuple[int, ...] = (), keys: tuple[int, ...] = (0,)) -> list[PacketFacts]:
        return [PacketFacts(t, i in keys, True, i not in hidden) for i, t in enumerate(times)]

    assert presented_times(facts(0, 4, 2, 6)) == [0, 2, 4, 6]
    assert presented_times(facts(0, 4, 2, 6, hidden=(1,))) == [0, 2, 6]
    for unclear in (facts(4, 2, 6), facts(0, 2, keys=()), facts(0, 2, 2), facts(0, None), facts(None, 2), []):
        assert presented_times(unclear) is None
    assert presented_times([*facts(0, 2), PacketFacts(4, False, usable=False)]) is None


def test_the_usual_film_is_told_without_a_frame_or_a_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_film(tmp_path / "film.mp4", EVEN)
    for name in ("_scan", "presented_frames", "_decoded_presentation"):
        monkeypatch.setattr(presentation, name, lambda *_: pytest.fail("was read further"))
    assert read_header(path).timeline == Timeline(24, 60)


def test_a_film_that_must_be_decoded_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "film.avi", 9, "mpeg4")
    decoded: list[Path] = []
    decode = presentation.presented_frames

    def watched(path: Path, *others: object) -> object:
        decoded.append(path)
        return decode(path, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(presentation, "presented_frames", watched)
    assert [read_header(path).timeline for _ in range(3)] == [Timeline(9, 25)] * 3
    assert decoded == [path]


def test_delays_of_a_gif(tmp_path: Path) -> None:
    from PIL import Image

    pictures = [Image.new("RGB", (40, 30), (30 * n, 0, 0)) for n in range(5)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[100, 1000, 200, 100, 500])
    timeline = read_header(tmp_path / "a.gif").timeline
    assert np.allclose(timeline.seconds_of(np.arange(5)), [0, 0.1, 1.1, 1.3, 1.4])
