"""What the statistics of boxes conclude, and what they leave alone."""

from __future__ import annotations

import numpy as np
import pytest

from internvl_chat.data.checking.box_rules import Extent, box_file_faults, seem_pixels, seems_xywh, seems_xyxy
from internvl_chat.data.checking.headers import BoxFileFacts
from internvl_chat.data.media.display import Display
from internvl_chat.data.media.sources import MediaHeader
from internvl_chat.data.records.box_evidence import evidence_of, kept_small
from internvl_chat.data.records.box_files import shown_thousandths

SIZE = (640, 360)
LIMITS = np.full(4, 1000.0)
RNG = np.random.default_rng(3)


def random_corners(count: int, width: int = 1000, height: int = 1000) -> np.ndarray:
    points = np.sort(RNG.uniform(0, 1, (count, 2, 2)), axis=1) * [width, height]
    return points.reshape(count, 4)


def extents(width_px: int, height_px: int, scale: tuple[float, float]) -> list[Extent]:
    reach = RNG.uniform(0.5, 1, (60, 2)) * scale
    return [Extent(right, bottom, width_px, height_px) for right, bottom in reach.tolist()]


@pytest.mark.parametrize(("scale", "doubted"), [(0.5, True), (1.0, False)])
def test_texts_of_a_smaller_copy_of_the_videos_are_doubted(scale: float, doubted: bool) -> None:
    rng = np.random.default_rng(1)
    files = []
    for _ in range(12):
        start, step = rng.uniform(0, 0.5, 2) * SIZE, rng.uniform(0, 0.03, 2) * SIZE
        boxes = np.hstack([start + np.arange(12)[:, None] * step, np.full((12, 2), 40.0)])
        files.append(evidence_of(boxes * scale, SIZE))
    reaches = [file.reach for file in files]
    assert (kept_small(reaches) is not None) == doubted
    assert kept_small(reaches[:2]) is None, "so few tell nothing"
    assert kept_small([reaches[0]] * 20) is None, "copies tell as much as one of them"


def test_a_few_tracks_are_doubted_where_they_keep_to_a_corner() -> None:
    percents = [(0.29, 0.41), (0.31, 0.17), (0.12, 0.35), (0.2, 0.4)]
    assert kept_small(percents) == (0.31, 0.41)
    assert kept_small(percents[:2]) is None
    assert kept_small([(2 * right, 2 * bottom) for right, bottom in percents]) is None


def test_boxes_of_a_text_without_area_are_told_unless_they_say_absent() -> None:
    text_px = np.array([[64.0, 36, 64, 36], [0, 0, 0, 0], [-1, -1, -1, -1], [64, 72, -64, -36], [64, 36, 0, 36]])
    boxes = shown_thousandths(text_px, SIZE, Display())
    faults = list(box_file_faults(BoxFileFacts(boxes, text_px), MediaHeader(5, (SIZE,), 30.0)))
    assert [(fault.code, fault.found) for fault in faults] == [
        ("track-degenerate", "2 boxes of the text beside it have no area, line 4 first")
    ]


@pytest.mark.parametrize("seed", range(5))
def test_boxes_of_either_order_are_told_apart(seed: int) -> None:
    xyxy = random_corners(200)
    xywh = np.hstack([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]])
    assert seems_xywh(xywh, LIMITS) and not seems_xywh(xyxy, LIMITS)
    assert seems_xyxy(xyxy, LIMITS) and not seems_xyxy(xywh, LIMITS)


def test_a_few_boxes_or_a_few_slips_prove_nothing() -> None:
    backwards = np.array([[600.0, 500, 90, 80]])
    assert not seems_xywh(np.repeat(backwards, 4, axis=0), LIMITS)
    assert not seems_xywh(np.vstack([random_corners(100), backwards]), LIMITS)
    assert not seems_xywh(np.vstack([np.repeat(backwards, 9, axis=0), [[600, 500, 990, 80]]]), LIMITS)
    assert not seems_xywh(np.zeros((50, 4)), LIMITS)


@pytest.mark.parametrize(("width_px", "height_px"), [(640, 480), (320, 240), (960, 540)])
def test_pixels_taken_for_thousandths_are_seen_by_their_reach(width_px: int, height_px: int) -> None:
    assert seem_pixels(extents(width_px, height_px, (width_px, height_px)))
    assert not seem_pixels(extents(width_px, height_px, (1000, 1000)))


def test_the_reach_proves_nothing_of_large_pictures_few_tracks_copies_or_one_corner() -> None:
    assert not seem_pixels(extents(1920, 1080, (1000, 1000)))
    assert not seem_pixels(extents(640, 480, (640, 480))[:4])
    assert not seem_pixels([Extent(630, 470, 640, 480)] * 100)
    assert not seem_pixels(extents(640, 480, (400, 300)))
    assert not seem_pixels([])
