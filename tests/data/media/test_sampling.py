"""Which frames are shown."""

from __future__ import annotations

import numpy as np
import pytest

from internvl_chat.data.media.sampling import FrameSampling, sample_frames


@pytest.mark.parametrize(
    ("num_frames", "video_length", "expected"),
    [
        (8, 100, [5, 18, 30, 43, 55, 68, 80, 93]),
        (4, 10, [0, 3, 5, 8]),
        (8, 5, [0, 1, 2, 3, 4, 4, 4, 4]),
    ],
)
def test_middle_gives_the_golden_numbers(num_frames: int, video_length: int, expected: list[int]) -> None:
    assert sample_frames(num_frames, video_length, "middle").tolist() == expected


@pytest.mark.parametrize(
    ("num_frames", "last_frame", "expected"),
    [
        (8, 99, [6, 18, 31, 43, 56, 68, 80, 93]),
        (4, 9, [1, 3, 5, 8]),
        (8, 4, [0, 0, 1, 2, 2, 2, 3, 4]),
    ],
)
def test_centre_gives_the_golden_numbers(num_frames: int, last_frame: int, expected: list[int]) -> None:
    assert sample_frames(num_frames, last_frame + 1, "centre").tolist() == expected


def test_rand_stays_in_its_segment_and_reaches_every_frame_of_it() -> None:
    rng = np.random.default_rng(0)
    drawn = np.stack([sample_frames(3, 11, "rand", rng) for _ in range(300)])
    assert [sorted(set(column.tolist())) for column in drawn.T] == [[0, 1, 2], [3, 4, 5, 6], [7, 8, 9, 10]]


def test_rand_depends_on_its_generator_alone() -> None:
    first, again, other = (sample_frames(7, 1000, "rand", np.random.default_rng(seed)).tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_rand_repeats_the_last_frame_of_a_short_video() -> None:
    assert sample_frames(6, 4, "rand", np.random.default_rng(0)).tolist() == [0, 1, 2, 3, 3, 3]


@pytest.mark.parametrize("method", ["rand", "middle", "centre"])
@pytest.mark.parametrize(("num_frames", "video_length"), [(1, 1), (5, 1), (1, 9), (7, 7), (32, 31), (48, 1400)])
def test_frames_are_as_many_as_asked_in_order_and_inside(
    method: FrameSampling, num_frames: int, video_length: int
) -> None:
    indices = sample_frames(num_frames, video_length, method, np.random.default_rng(3))
    assert len(indices) == num_frames
    assert (np.diff(indices) >= 0).all()
    assert indices[0] >= 0 and indices[-1] < video_length


@pytest.mark.parametrize(
    ("num_frames", "video_length", "method"),
    [(0, 5, "middle"), (5, 0, "centre"), (2, 5, "rand"), (2, 5, "fps1"), (2, 5, "first")],
)
def test_impossible_requests_are_refused(num_frames: int, video_length: int, method: FrameSampling) -> None:
    with pytest.raises(ValueError, match="frames|generator|rate|unknown"):
        sample_frames(num_frames, video_length, method)
