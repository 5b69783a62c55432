"""OpenCV's trackers that need no weights: CSRT, which adapts its size, and MIL, which does not."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import numpy.typing as npt

from internvl_chat.contracts import UserError
from internvl_chat.trackers.protocol import BoxPx, Frame, Sighting

# What each needs at least to draw its features from: MIL never returns from less, CSRT fails.
_MIN_SIDE_PX = {"csrt": 2, "mil": 8}
_CREATE = {"csrt": cv2.TrackerCSRT_create, "mil": cv2.TrackerMIL_create}
# Hue and saturation: brightness changes most while the object stays the same.
_CHANNELS, _BINS, _RANGES = [0, 1], [16, 16], [0, 180, 0, 256]


class OpenCVTracker:
    """One of OpenCV's trackers for each object; they share the frame.

    None of them says how sure it is. The confidence is how alike the colours in the box are to those in the box that
    was given last: 1 less the Hellinger distance of their histograms; 0 where the tracker itself reports a loss.

    Args:
        name: `csrt` or `mil`.
        num_objects: N.
    """

    def __init__(self, name: str, num_objects: int) -> None:
        self._name = name
        self._num_objects = num_objects
        self._trackers: dict[int, cv2.Tracker] = {}
        self._colours: dict[int, npt.NDArray[np.float32]] = {}

    def step(self, frame: Frame, given: Mapping[int, BoxPx]) -> Sighting:
        boxes_px, confidence = np.zeros((self._num_objects, 4)), np.zeros(self._num_objects)
        picture = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        for number in self._trackers.keys() - given.keys():
            found, box = self._trackers[number].update(picture)
            if found and (colours := _colours_in(picture, box)) is not None:
                distance = cv2.compareHist(self._colours[number], colours, cv2.HISTCMP_BHATTACHARYYA)
                boxes_px[number], confidence[number] = box, 1 - distance
        for number, box_px in given.items():
            self._start(picture, number, box_px)
            boxes_px[number], confidence[number] = box_px, 1
        return Sighting(boxes_px, confidence)

    def _start(self, picture: Frame, number: int, box_px: BoxPx) -> None:
        left, top, right, bottom = (int(v) for v in np.rint([*box_px[:2], *(box_px[:2] + box_px[2:])]))
        least = _MIN_SIDE_PX[self._name]
        if min(right - left, bottom - top) < least:
            raise UserError(
                f"the box {box_px.tolist()} is too small for {self._name}: expected {least} pixels a side or more"
            )
        box = (left, top, right - left, bottom - top)
        tracker = _CREATE[self._name]()
        try:
            tracker.init(picture, box)
        except cv2.error as error:
            raise UserError(
                f"the box {box_px.tolist()} is none that {self._name} can follow ({error.err}): does it leave room "
                "around the object?"
            ) from error
        colours = _colours_in(picture, box)
        if colours is None:
            raise UserError(f"the box {box_px.tolist()} lies outside the picture")
        self._trackers[number], self._colours[number] = tracker, colours


def _colours_in(picture: Frame, box: tuple[int, int, int, int]) -> npt.NDArray[np.float32] | None:
    """The histogram of a box's part inside the picture, its sum 1; None if it has none."""
    x, y, w, h = box
    part = picture[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)]
    if not part.size:
        return None
    hsv = cv2.cvtColor(np.ascontiguousarray(part), cv2.COLOR_BGR2HSV)
    counts = cv2.calcHist([hsv], _CHANNELS, None, _BINS, _RANGES)
    return cv2.normalize(counts, counts, 1, 0, cv2.NORM_L1)
