"""The frames that stand for a track: spread over where the object is to be seen, never where it is not."""

from __future__ import annotations

import numpy as np
import pytest

from internvl_chat.data.records.track_frames import FRAME_CHOICES, FrameChoice, key_frame, track_frames

# Seen in frames 3 to 16, but for 7 and 8: twelve of twenty.
SEEN = [3, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15, 16]
PRESENT = np.isin(np.arange(20), SEEN)


@pytest.mark.parametrize(
    ("choice", "count", "expected"),
    [
        ("average", 4, [3, 6, 11, 14]),
        ("average", 5, [3, 5, 9, 12, 14]),
        ("first", 3, [3, 4, 5]),
        ("cluster", 2, [3, 6, 11, 14]),
        ("cluster", 6, SEEN),
        ("average", 12, SEEN),
    ],
)
def test_frames_are_spread_over_the_track(choice: FrameChoice, count: int, expected: list[int]) -> None:
    assert track_frames(PRESENT, count, choice).tolist() == expected


@pytest.mark.parametrize("choice", FRAME_CHOICES)
def test_an_object_that_is_never_seen_has_no_frames(choice: FrameChoice) -> None:
    assert track_frames(np.zeros(9, bool), 4, choice).tolist() == []
    assert key_frame(np.zeros(9, bool)) is None


def test_the_key_frame_is_one_where_the_object_is_seen() -> None:
    assert key_frame(PRESENT) == 11
    assert key_frame(np.arange(5) == 4) == 4


def test_no_slots_is_an_error() -> None:
    with pytest.raises(ValueError, match="count is 0"):
        track_frames(PRESENT, 0, "average")
