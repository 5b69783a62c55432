"""Frames chosen by when they are shown: those of the original's reader, and what is told of the rest."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import decord
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_chat.contracts import UserError
from internvl_chat.data.media.timeline import Timeline
from internvl_chat.data.media.video import read_header
from internvl_chat.data.prompts.frame_choice import FrameChoice, ShownTimes


def write_timed(path: Path, milliseconds: list[int], codec: str = "libx264") -> Path:
    """A video whose frames are shown at these times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(milliseconds):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 7 * number % 256, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def steady(seconds: float, rate: int = 25) -> list[int]:
    return [number * 1000 // rate for number in range(round(seconds * rate))]


def irregular(count: int, seed: int) -> list[int]:
    return np.cumsum(np.random.default_rng(seed).integers(5, 900, count)).tolist()


@pytest.fixture(
    scope="module",
    params=[
        ("steady.mp4", steady(3)),
        ("long.mp4", steady(27.5, 5)),
        ("uneven.mp4", irregular(40, 1)),
        ("late.mkv", [1500 + time for time in irregular(60, 2)]),
        ("one.mp4", [0]),
        ("sparse.mp4", list(range(0, 20_000, 1700))),
    ],
    ids=lambda param: param[0],
)
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, milliseconds = request.param
    return write_timed(tmp_path_factory.mktemp("timed") / name, milliseconds)


def test_times_are_those_of_the_originals_reader(video: Path) -> None:
    reader = decord.VideoReader(str(video))
    shown = ShownTimes.of(read_header(video).timeline)
    expected = reader.get_frame_timestamp(np.arange(len(reader)))[:, 0]
    assert shown.times_s.shape == expected.shape
    assert np.abs(shown.times_s - expected).max() < 1e-5


def test_chat_takes_the_frames_that_the_original_takes(video: Path) -> None:
    reader = decord.VideoReader(str(video))
    times = [start for start, _ in reader.get_frame_timestamp(np.arange(len(reader)))]
    expected = []
    for second in range(round(max(times)) + 1):
        expected.append(times.index(min(times, key=lambda time: abs(time - second))))
        if len(expected) == 24:
            break
    assert FrameChoice.named("chat").frames(ShownTimes.of(read_header(video).timeline)).tolist() == expected


def test_base_takes_the_frames_that_the_original_takes() -> None:
    for count, rate in ((10, 25.0), (2000, 25.0), (2000, 29.97), (61, 1.0)):
        end = min(count, int(60 * rate))
        shown = ShownTimes(0, np.arange(count) / rate, rate)
        expected = np.linspace(0, end - 1, 24, dtype=int).tolist()
        assert FrameChoice.named("base").frames(shown).tolist() == expected


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=30), st.sampled_from([1, 4, 7]))
def test_uniform_and_rate_take_the_nearest_frames(steps: list[int], amount: int) -> None:
    times_s = (np.cumsum(steps) - steps[0]) / 1000
    shown = ShownTimes(0, times_s, 0.0)
    length_s = shown.until_s
    spread = [(number + 0.5) * (length_s / amount) for number in range(amount)]
    paced = [number / amount for number in range(200_000) if number / amount < max(length_s, 1e-9)]
    for name, wanted in ((f"uniform{amount}", spread), (f"fps {amount}", paced)):
        expected = sorted({min(range(len(times_s)), key=lambda n, at=at: abs(times_s[n] - at)) for at in wanted[:400]})
        chosen = FrameChoice.named(name).frames(shown).tolist()
        assert chosen[: len(expected) - 1] == expected[:-1]
        assert len(wanted) > 400 or chosen == expected


def test_windows_hold_their_own_frames_under_their_own_numbers() -> None:
    shown = ShownTimes(0, np.delete(np.arange(100) / 10, range(50, 75)), 10.0)
    parts = shown.windows(2.5)
    assert [(part.first, len(part.times_s), part.from_s) for part in parts] == [
        (0, 25, 0.0),
        (25, 25, 2.5),
        (50, 25, 7.5),
    ]
    assert [FrameChoice.named("chat").frames(part).tolist() for part in parts] == [
        [0, 10, 20],
        [25, 35, 45],
        [50, 60, 70],
    ]


@pytest.mark.parametrize(
    ("name", "unseen"), [("chat", (24, 70)), ("base", (60, 70)), ("uniform9", None), ("fps1", None)]
)
def test_what_is_not_looked_at_is_told(name: str, unseen: tuple[float, float] | None) -> None:
    assert FrameChoice.named(name).unseen_s(ShownTimes(0, np.arange(140) / 2, 2.0)) == unseen
    assert FrameChoice.named(name).unseen_s(ShownTimes(0, np.arange(40) / 2, 2.0)) is None


def test_a_choice_is_written_as_it_is_read() -> None:
    for text, name in (("chat", "chat"), ("base", "base"), ("uniform 8", "uniform8"), ("fps0.5", "fps0.5")):
        assert FrameChoice.named(text).name == name
        assert FrameChoice.named(name) == FrameChoice.named(text)


LONG = "9" * 5000


@pytest.mark.parametrize(
    "text",
    ["", "chatty", "uniform", "uniform0", "uniform2.5", f"uniform{LONG}", "fps", "fps0", "fps-1", f"fps{LONG}", "8"],
    ids=lambda text: text[:12],
)
def test_what_names_no_choice_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="expected chat, base"):
        FrameChoice.named(text)


def test_a_video_without_time_is_told() -> None:
    with pytest.raises(UserError, match="neither when its frames are shown nor their rate"):
        ShownTimes.of(Timeline(5))


def test_a_clip_holds_the_frames_from_one_second_to_the_other() -> None:
    shown = ShownTimes.of(Timeline(100, 10.0))
    part = shown.within((4.0, 6.0))
    assert (part.first, len(part.times_s), part.from_s) == (40, 21, 4.0)
    assert FrameChoice.named("chat").frames(part).tolist() == [40, 50, 60]
    assert shown.within(None) is shown
    with pytest.raises(UserError, match="no frame is first shown then; the video lasts 10.00 s"):
        shown.within((11, 12))
