"""What a user has pointed at in one clip: objects, the boxes given for them, and the tracks that came of these.

All of it are values: an edit gives a new one. Shape letter: T frames of the clip. Boxes are x y w h in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from internvl_chat.contracts import TrackRows, UserError
from internvl_chat.data.records.given.given_boxes import track_of_boxes
from internvl_chat.data.records.names import check_name
from internvl_chat.trackers.following import FollowedObjects, GivenObject, Way, spans_without

# x y w h in pixels of the video, with area.
BoxPx = tuple[float, float, float, float]
# The number that no object has: the next box drawn is a new object's.
NEW = 0
MAX_OBJECTS = 20


@dataclass(frozen=True, eq=False)
class PointedObject:
    """One object of a clip.

    Args:
        number: tells it from the clip's other objects, from 1; names may be alike.
        name: how the prompt calls it.
        given: frame -> the box that the user set there; None says that it is not to be seen from there on.
        boxes_px: [T, 4], zeros where it is not to be seen or not known.
        confidence: [T] from 0 to 1; 1 where the box was set.
        changed: frames for which something was given, or taken back, since the object was last tracked there.
        caption: what the model said of it, or the user instead.
        candidates: other captions to choose from.
        is_caption_current: whether the boxes are those that the caption was asked with.
    """

    number: int
    name: str
    given: Mapping[int, BoxPx | None]
    boxes_px: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64]
    changed: frozenset[int] = frozenset()
    caption: str = ""
    candidates: tuple[str, ...] = ()
    is_caption_current: bool = True

    @property
    def label(self) -> str:
        """How the page calls it."""
        return f"{self.number} {self.name}"

    @property
    def num_frames(self) -> int:
        return len(self.boxes_px)

    @property
    def is_tracked(self) -> bool:
        """Whether the boxes follow from all that is given."""
        return not self.changed

    def follow_from(self) -> GivenObject:
        """What trackers follow it from; there is a box among what is given."""
        return GivenObject(self.name, {frame: np.array(box or (0, 0, 0, 0)) for frame, box in self.given.items()})

    def track(self) -> TrackRows:
        """Its boxes as the model is handed them."""
        return track_of_boxes(self.boxes_px, self.name)

    def with_box(self, frame: int, box_px: BoxPx) -> PointedObject:
        """The object where it is set on one frame; its track is followed anew when it is tracked again."""
        boxes_px, confidence = self.boxes_px.copy(), self.confidence.copy()
        boxes_px[frame], confidence[frame] = box_px, 1
        return self._set(frame, given={**self.given, frame: box_px}, boxes_px=boxes_px, confidence=confidence)

    def absent_from(self, frame: int) -> PointedObject:
        """The object not to be seen from a frame on, until the next box that is given.

        Before its first box it is not to be seen up to that frame.

        Raises:
            UserError: the only box that is given is on that frame.
        """
        given = {**self.given, frame: None}
        if not any(given.values()):
            raise UserError(f"object {self.label!r} has its only box on frame {frame}: remove the object instead")
        return self._set(frame, given=given)._without_absent()

    def without_given(self, frame: int) -> PointedObject | None:
        """The object without what was set on a frame; None if nothing is left to follow it from."""
        given = {at: box for at, box in self.given.items() if at != frame}
        if not any(given.values()):
            return None
        boxes_px, confidence = self.boxes_px.copy(), self.confidence.copy()
        boxes_px[frame], confidence[frame] = 0, 0
        return self._set(frame, given=given, boxes_px=boxes_px, confidence=confidence)

    def with_track(
        self, boxes_px: npt.NDArray[np.float64], confidence: npt.NDArray[np.float64], span: tuple[int, int]
    ) -> PointedObject:
        """The object with what a tracker found on the frames of a span, first to the one after the last."""
        kept = slice(*span)
        own_px, own_confidence = self.boxes_px.copy(), self.confidence.copy()
        own_px[kept], own_confidence[kept] = boxes_px[kept], confidence[kept]
        changed = frozenset(frame for frame in self.changed if not span[0] <= frame < span[1])
        found = replace(self, boxes_px=own_px, confidence=own_confidence, changed=changed)._without_absent()
        return replace(found, is_caption_current=not self.caption)

    def with_captions(self, texts: Sequence[str]) -> PointedObject:
        """The object with what the model said of it, the best first."""
        return replace(self, caption=texts[0], candidates=tuple(texts), is_caption_current=True)

    def _set(self, frame: int, **fields: Any) -> PointedObject:
        return replace(self, changed=self.changed | {frame}, is_caption_current=not self.caption, **fields)

    def _without_absent(self) -> PointedObject:
        boxes_px, confidence = self.boxes_px.copy(), self.confidence.copy()
        for start, stop in spans_without(self.follow_from(), self.num_frames):
            boxes_px[start:stop], confidence[start:stop] = 0, 0
        return replace(self, boxes_px=boxes_px, confidence=confidence)


def pass_of(one: PointedObject, frame: int, way: Way | None) -> tuple[GivenObject, tuple[int, int]]:
    """What an object is followed from, and the frames of which the track is taken.

    Args:
        way: both ways from all that is given where it is None; else from its box on `frame`, whether set or found:
            forwards to the end, backwards to the frame after the one before that something was given for.
    Raises:
        UserError: it has no box on `frame`.
    """
    if way is None:
        return one.follow_from(), (0, one.num_frames)
    if not one.boxes_px[frame].any():
        raise UserError(f"object {one.label!r} has no box on frame {frame}: draw one there first")
    start = {frame: one.boxes_px[frame]}
    if way == "backwards":
        return GivenObject(one.name, start), (max((at + 1 for at in one.given if at < frame), default=0), frame + 1)
    later = {at: box for at, box in one.follow_from().boxes_px.items() if at > frame}
    return GivenObject(one.name, start | later), (frame, one.num_frames)


@dataclass(frozen=True)
class DrawnBox:
    """A box on the picture: that of the object of this number, or a new one that is nobody's yet."""

    number: int | None
    box_px: BoxPx


@dataclass(frozen=True, eq=False)
class PointedClip:
    """One clip and what was pointed at in it.

    Args:
        clip: its name in the list of clips.
        size_px: width and height.
        num_frames: T.
        frame: the one that is shown.
        chosen: the number of the object that the next box is of, `NEW` for a new one.
        next_name: what a new object is called.
        by_clicks: whether boxes are set by two clicks, and not drawn.
        highest: the highest number that an object had; what is on its way to one that is gone finds no other.
    """

    clip: str
    size_px: tuple[int, int]
    num_frames: int
    objects: tuple[PointedObject, ...] = ()
    frame: int = 0
    chosen: int = NEW
    next_name: str = "object"
    by_clicks: bool = False
    highest: int = 0

    @property
    def next_number(self) -> int:
        """What no object is, or was, called."""
        return max([self.highest, *(one.number for one in self.objects)]) + 1

    def object_of(self, number: int) -> PointedObject | None:
        """The object of this number; None if there is none."""
        return next((one for one in self.objects if one.number == number), None)

    def chosen_object(self) -> PointedObject:
        """The object that is chosen, or the only one.

        Raises:
            UserError: none is chosen among several, or there is none.
        """
        one = self.objects[0] if self.chosen == NEW and len(self.objects) == 1 else self.object_of(self.chosen)
        if one is None:
            raise UserError("choose an object first" if self.objects else "draw a box around an object first")
        return one

    def at(self, frame: int) -> PointedClip:
        """The same where another frame is shown, the nearest there is."""
        return replace(self, frame=min(max(frame, 0), self.num_frames - 1))

    def with_object(self, changed: PointedObject) -> PointedClip:
        """The same with one of its objects changed."""
        return replace(self, objects=tuple(changed if one.number == changed.number else one for one in self.objects))

    def without_object(self, number: int) -> PointedClip:
        """The same without one of its objects; none is chosen then."""
        left = tuple(one for one in self.objects if one.number != number)
        return replace(self, objects=left, chosen=NEW, highest=self.next_number - 1)

    def with_new_object(self, box_px: BoxPx) -> PointedClip:
        """The same with one more object, called `next_name`, where it is on the frame that is shown.

        Raises:
            UserError: its name cannot stand in a prompt, or there are too many.
        """
        if len(self.objects) >= MAX_OBJECTS:
            raise UserError(f"{len(self.objects)} objects are pointed at, at most {MAX_OBJECTS}: remove one")
        name = check_name(self.next_name, "the name of a new object")
        blank = PointedObject(self.next_number, name, {}, np.zeros((self.num_frames, 4)), np.zeros(self.num_frames))
        return replace(self, objects=(*self.objects, blank.with_box(self.frame, box_px)))

    def with_drawn(self, drawn: Sequence[DrawnBox], tolerance_px: float) -> PointedClip:
        """What the boxes that now lie on the shown frame say.

        A new box is that of the chosen object, or a new object's. One that moved by more than `tolerance_px` is set.
        One that was taken away says that its object is not to be seen from here on, or takes back what was set here.
        One that is too small to be drawn is neither.

        Returns:
            `self` where nothing changed.
        Raises:
            UserError: as `with_new_object`.
        """
        result, fresh = self, [self._inside(box.box_px) for box in drawn if box.number is None]
        places = {box.number: self._inside(box.box_px) for box in drawn if box.number is not None}
        for box_px in filter(None, fresh):
            if self.object_of(self.chosen) is None:
                result = result.with_new_object(box_px)
            else:
                places[self.chosen] = box_px
        for one in self.objects:
            before, now = one.boxes_px[self.frame], places.get(one.number)
            if now is not None and np.abs(np.array(now) - before).max() > tolerance_px:
                result = result.with_object(one.with_box(self.frame, now))
            elif one.number not in places and min(before[2:]) > tolerance_px:
                result = result._taken_away(one)
        return result

    def _taken_away(self, one: PointedObject) -> PointedClip:
        """The same where the box of an object on the shown frame was taken away."""
        left = one.without_given(self.frame) if self.frame in one.given else one.absent_from(self.frame)
        return self.without_object(one.number) if left is None else self.with_object(left)

    def _inside(self, box_px: BoxPx) -> BoxPx | None:
        """The part of a box that lies in the picture; None if it is less than a pixel wide or high."""
        x, y, w, h = box_px
        left, right = (min(max(v, 0), self.size_px[0]) for v in (x, x + w))
        top, bottom = (min(max(v, 0), self.size_px[1]) for v in (y, y + h))
        inside = (left, top, right - left, bottom - top)
        return inside if min(inside[2:]) >= 1 else None


def to_track(pointed: PointedClip, way: Way | None) -> list[PointedObject]:
    """The chosen object; else, one way, all with a box on the shown frame, and both ways, those given something new.

    Raises:
        UserError: there is none.
    """
    chosen = pointed.object_of(pointed.chosen)
    if chosen is not None:
        return [chosen]
    wanted = [one for one in pointed.objects if (one.boxes_px[pointed.frame].any() if way else not one.is_tracked)]
    if not wanted and way:
        raise UserError(f"no object has a box on frame {pointed.frame}: draw one first")
    if not wanted:
        raise UserError("every object is tracked as it is given" if pointed.objects else "draw a box first")
    return wanted


def with_followed(
    now: PointedClip,
    start: PointedClip,
    objects: Sequence[PointedObject],
    followed: FollowedObjects,
    spans: Sequence[tuple[int, int]],
) -> PointedClip:
    """What is pointed at by now, with what was found of the objects of `start`, each on the frames of its span.

    An object that was given something meanwhile is left as it is.
    """
    for number, (one, span) in enumerate(zip(objects, spans, strict=True)):
        current = now.object_of(one.number) if now.clip == start.clip else None
        if current is not None and current.given == one.given:
            track = current.with_track(followed.boxes_px[number], followed.confidence[number], span)
            now = now.with_object(track)
    return now


def spans_seen(one: PointedObject) -> Iterator[tuple[int, int]]:
    """First frame and the one after the last of each span in which an object is to be seen."""
    is_seen = np.concatenate([[False], one.boxes_px.any(axis=1), [False]])
    edges = np.flatnonzero(is_seen[1:] != is_seen[:-1])
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
