"""Tracks made worse: what stays and what does not, frame by frame."""

from __future__ import annotations

import numpy as np
import pytest

from internvl_chat.boxes import is_absent
from internvl_chat.tasks.control.perturb import PERTURBATIONS, perturbed

BOXES = np.array([[100, 200, 300, 600], [0, 0, 0, 0], [0, 0, 1000, 1000], [990, 990, 991, 1000], [400, 100, 460, 180]])
NUM_BOXES = len(BOXES)


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("amount", [0.1, 0.5, 0.9, 3.0])
def test_every_track_stays_one(name: str, amount: float) -> None:
    before = BOXES.copy()
    boxes = perturbed(name, min(amount, 1.0) if name in ("shrink", "absent") else amount, BOXES, "dog-1")
    assert np.array_equal(BOXES, before)
    assert boxes.shape == BOXES.shape and boxes.dtype == BOXES.dtype
    assert boxes.min() >= 0 and boxes.max() <= 1000
    assert not boxes[1].any()
    if name in ("jitter", "shrink"):
        assert is_absent(boxes).tolist() == is_absent(BOXES).tolist()


def test_shrinking_keeps_the_centre() -> None:
    assert perturbed("shrink", 0.5, BOXES, "dog-1")[0].tolist() == [150, 300, 250, 500]
    assert perturbed("shrink", 0.0, BOXES, "dog-1").tolist() == BOXES.tolist()


def test_jitter_moves_by_a_share_of_the_size_each_frame_on_its_own() -> None:
    track = np.tile([[400, 400, 500, 600]], (2000, 1))
    moved = perturbed("jitter", 0.5, track, "dog-1")
    assert np.array_equal(moved[:, 2:] - moved[:, :2], track[:, 2:] - track[:, :2])
    shift = moved[:, :2] - track[:, :2]
    assert np.abs(shift).max(axis=0).tolist() == [50, 100]
    assert abs(shift.mean(axis=0)).max() < 5
    assert len(np.unique(shift, axis=0)) > 1000


def test_more_absent_frames_are_the_same_and_others() -> None:
    track = np.tile([[400, 400, 500, 600]], (40, 1))
    lost = [set(np.flatnonzero(is_absent(perturbed("absent", share, track, "dog-1")))) for share in (0.25, 0.5, 1.0)]
    assert [len(frames) for frames in lost] == [10, 20, 40]
    assert lost[0] < lost[1] < lost[2]


def test_chance_is_the_tracks_own() -> None:
    one, again, other = (perturbed("jitter", 0.5, BOXES, track_id) for track_id in ("dog-1", "dog-1", "dog-2"))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
