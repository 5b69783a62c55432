"""Tracks as a program hands them over."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from internvl_chat.contracts import UserError
from internvl_chat.data.records.given.given_tracks import as_tracks


def test_boxes_of_whatever_makes_numbers() -> None:
    boxes = [[1, 2, 30, 40], [2, 2, 31, 40]]
    expected = as_tracks(dict(enumerate(boxes)), unit="pixels")
    for make in (np.array, torch.tensor, tuple, lambda box: tuple(np.float32(side) for side in box)):
        assert as_tracks({frame: make(box) for frame, box in enumerate(boxes)}, unit="pixels") == expected
    assert as_tracks(torch.tensor(boxes), unit="pixels") == as_tracks(boxes, unit="pixels")
    with pytest.raises(UserError, match="masked numbers: fill them, with zeros where the object is absent"):
        as_tracks(np.ma.masked_equal(boxes, 31), unit="pixels")
