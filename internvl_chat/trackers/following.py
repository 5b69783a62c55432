"""Objects that are given on some frames, followed to both ends of a video.

Shape letters: N objects, T frames of the video. Boxes are x y w h in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from internvl_chat.boxes import is_absent, sized_boxes
from internvl_chat.contracts import TrackRows, UserError
from internvl_chat.data.records.tracks import SECONDS_REACH_S, nearest_of, shown_fractions
from internvl_chat.trackers.frames import Footage
from internvl_chat.trackers.protocol import BoxPx, Frame, Tracker, TrackerFactory

# The directions of time in which objects are followed from where they are given.
Way = Literal["forwards", "backwards"]
WAYS: tuple[Way, ...] = get_args(Way)


@dataclass(frozen=True)
class GivenObject:
    """What is known of one object before it is followed.

    Args:
        name: how prompts call it.
        boxes_px: frame number -> its box [4] x y w h there; zeros say that it is not to be seen from there on.
    """

    name: str
    boxes_px: Mapping[int, BoxPx]

    @property
    def first(self) -> int:
        """The first frame on which it has a box."""
        return min(number for number, box in self.boxes_px.items() if box.any())


@dataclass(frozen=True, eq=False)
class FollowedObjects:
    """The tracks of N objects: boxes_px [N, T, 4], zeros where an object is absent, and confidence [N, T]."""

    boxes_px: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64]


def given_of_track(track: TrackRows, footage: Footage) -> GivenObject:
    """The rows of a record's track as what an object is followed from.

    Raises:
        UserError: it names a frame that the video does not have, or a box outside the picture, or none with area.
    """
    where, sides = f"{footage.path}: object {track.name!r}", np.tile(footage.size_px, 2)
    numbers = _frames_of(track, footage, where)
    last = max([*numbers.tolist(), *track.absent])
    if last >= footage.num_frames:
        raise UserError(f"{where}: is given on frame {last}, the video has 0 to {footage.num_frames - 1}")
    corners = shown_fractions(track, track.corners, numbers, footage.header, where) * sides
    inside = np.clip(corners, 0, sides)
    lost = is_absent(inside) & ~is_absent(corners)
    if lost.any():
        at = int(np.argmax(lost))
        raise UserError(
            f"{where}: its box on frame {numbers[at]} lies outside {footage.size_px[0]} x {footage.size_px[1]}: where "
            "it is not to be seen, say so ('absent')"
        )
    boxes_px = sized_boxes(inside)
    boxes_px[is_absent(inside)] = 0
    given = dict(zip(numbers.tolist(), boxes_px, strict=True)) | {number: np.zeros(4) for number in track.absent}
    if not any(box.any() for box in given.values()):
        raise UserError(f"{where}: has no box with area: there is nothing to follow")
    return GivenObject(track.name, given)


def _frames_of(track: TrackRows, footage: Footage, where: str) -> npt.NDArray[np.int64]:
    """The frame of each row: the one that is shown nearest to a row's second."""
    if track.by != "second":
        return track.positions.astype(np.int64)
    if footage.header.frames_per_second <= 0:
        raise UserError(f"{where}: is given by second, but the video states no rate: give it by frame")
    shown_s = footage.header.timeline.seconds_of(np.arange(footage.num_frames))
    nearest, away_s = nearest_of(shown_s, track.positions)
    if (away_s > SECONDS_REACH_S).any():
        at = float(track.positions[int(np.argmax(away_s))])
        raise UserError(f"{where}: is given at second {at:g}, when no frame of the video is shown")
    return nearest


def follow(
    footage: Footage,
    objects: Sequence[GivenObject],
    make: TrackerFactory,
    min_confidence: float,
    on_frame: Callable[[], object] = lambda: None,
    ways: Collection[Way] = WAYS,
) -> FollowedObjects:
    """Follow objects through a whole video: forwards from where each is first given, and backwards from there.

    A later box corrects an object: it is followed anew from it. On frames where it was given, its box is the given one.

    Args:
        min_confidence: below it the object counts as absent; its confidence is kept.
        on_frame: called after each frame of either direction, `num_steps` times in all. What it raises ends the pass.
        ways: with one of them, the frames that lie the other way have no boxes and no confidence.
    """
    boxes_px = np.zeros((len(objects), footage.num_frames, 4))
    confidence = np.zeros((len(objects), footage.num_frames))
    firsts = np.array([one.first for one in objects])

    def note(number: int, tracker: Tracker, frame: Frame, given: Mapping[int, BoxPx], wanted: npt.NDArray) -> None:
        seen = tracker.step(frame, given)
        boxes_px[wanted, number] = _inside(seen.boxes_px, footage.size_px)[wanted]
        confidence[wanted, number] = seen.confidence[wanted]
        on_frame()

    if "forwards" in ways:
        tracker = make(len(objects))
        for number, frame in zip(count(int(firsts.min())), footage.forwards(int(firsts.min())), strict=False):
            boxes = {k: one.boxes_px.get(number, _NOWHERE) for k, one in enumerate(objects)}
            note(number, tracker, frame, {k: box for k, box in boxes.items() if box.any()}, firsts <= number)
    if "backwards" in ways and firsts.max() > 0:
        tracker = make(len(objects))
        for number, frame in zip(count(int(firsts.max()), -1), footage.backwards(int(firsts.max())), strict=False):
            given = {k: one.boxes_px[number] for k, one in enumerate(objects) if one.first == number}
            note(number, tracker, frame, given, firsts >= number)
    boxes_px[confidence < min_confidence] = 0
    for k, one in enumerate(objects):
        for start, stop in spans_without(one, footage.num_frames):
            boxes_px[k, start:stop], confidence[k, start:stop] = 0, 0
    return FollowedObjects(boxes_px, confidence)


def num_steps(footage: Footage, objects: Sequence[GivenObject], ways: Collection[Way] = WAYS) -> int:
    """How many frames `follow` goes over, those of each direction counted."""
    firsts = [one.first for one in objects]
    forwards = footage.num_frames - min(firsts) if "forwards" in ways else 0
    return forwards + (max(firsts) + 1 if "backwards" in ways and max(firsts) else 0)


_NOWHERE = np.zeros(4)


def spans_without(one: GivenObject, num_frames: int) -> Iterator[tuple[int, int]]:
    """First frame and the one after the last of each span in which an object was said not to be seen.

    One before the first box ends there to the left: towards frame 0 it is followed backwards only down to it.
    """
    numbers = sorted(one.boxes_px)
    for number, after in zip(numbers, [*numbers[1:], num_frames], strict=True):
        if not one.boxes_px[number].any():
            yield (0, number + 1) if number < one.first else (number, after)


def _inside(boxes_px: npt.NDArray[np.float64], size_px: tuple[int, int]) -> npt.NDArray[np.float64]:
    """The parts [N, 4] of boxes that lie in the picture; zeros where none does."""
    limit = np.array(size_px, dtype=np.float64)
    low, high = np.clip(boxes_px[:, :2], 0, limit), np.clip(boxes_px[:, :2] + boxes_px[:, 2:], 0, limit)
    return np.where((high > low).all(axis=1, keepdims=True), np.concatenate([low, high - low], axis=1), 0)
