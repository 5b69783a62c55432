"""What drawn boxes, marks and passes make of a clip's objects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from internvl_chat.contracts import UserError
from internvl_chat.trackers.following import FollowedObjects, Way
from internvl_chat.web.pointing import (
    DrawnBox,
    PointedClip,
    PointedObject,
    pass_of,
    spans_seen,
    to_track,
    with_followed,
)

NUM_FRAMES = 11
A, B, C = (10.0, 5.0, 20.0, 8.0), (40.0, 30.0, 12.0, 16.0), (3.0, 4.0, 9.0, 7.0)
CLIP = PointedClip("clip.mp4", (70, 50), NUM_FRAMES)


def pointed_at(frame: int = 4) -> PointedClip:
    """Two objects, drawn together on one frame."""
    return CLIP.at(frame).with_drawn([DrawnBox(None, A), DrawnBox(None, B)], 1)


def everywhere(one: PointedObject) -> PointedObject:
    """The object tracked through all frames, ever less surely."""
    boxes_px = np.tile(np.array(A), (NUM_FRAMES, 1)) + np.arange(NUM_FRAMES)[:, None] * [1, 0, 0, 0]
    return one.with_track(boxes_px, np.linspace(1, 0.5, NUM_FRAMES), (0, NUM_FRAMES))


def seen(one: PointedObject) -> list[int]:
    return np.flatnonzero(one.boxes_px.any(axis=1)).tolist()


def test_new_boxes_are_new_objects_of_the_next_name() -> None:
    pointed = replace(pointed_at(4), next_name="dog").at(6).with_drawn([DrawnBox(None, C)], 1)
    assert [(one.number, one.name, dict(one.given)) for one in pointed.objects] == [
        (1, "object", {4: A}),
        (2, "object", {4: B}),
        (3, "dog", {6: C}),
    ]
    assert [one.is_tracked for one in pointed.objects] == [False] * 3
    assert pointed.objects[2].boxes_px[6].tolist() == list(C)


def test_a_box_is_cut_at_the_picture_and_one_outside_is_none() -> None:
    pointed = CLIP.with_drawn([DrawnBox(None, (60, 45, 30, 30)), DrawnBox(None, (-9, 0, 9, 20))], 1)
    (only,) = pointed.objects
    assert only.given[0] == (60, 45, 10, 5)


def test_boxes_that_lie_where_they_lay_change_nothing() -> None:
    pointed = pointed_at()
    nearly = (A[0] + 0.7, *A[1:])
    assert pointed.with_drawn([DrawnBox(1, nearly), DrawnBox(2, B)], 1) is pointed


def test_a_moved_box_and_a_new_one_of_the_chosen_object_are_set_there() -> None:
    pointed = pointed_at().with_drawn([DrawnBox(1, C), DrawnBox(2, B)], 1)
    assert pointed.objects[0].given == {4: C} and pointed.objects[1].given == {4: B}
    chosen = replace(pointed.at(9), chosen=2).with_drawn([DrawnBox(None, A)], 1)
    assert len(chosen.objects) == 2
    assert chosen.objects[1].given == {4: B, 9: A}


def test_a_box_that_is_taken_away_is_taken_back_or_says_absent() -> None:
    pointed = pointed_at()
    tracked = pointed.with_object(everywhere(pointed.objects[0])).at(7)
    gone = tracked.with_drawn([], 1)
    assert gone.objects[0].given == {4: A, 7: None}
    assert seen(gone.objects[0]) == [0, 1, 2, 3, 4, 5, 6]
    assert [one.number for one in pointed.with_drawn([DrawnBox(2, B)], 1).objects] == [2]


def test_absence_lasts_to_the_next_box_and_before_the_first_one_from_the_start() -> None:
    one = everywhere(pointed_at().objects[0]).with_box(8, B)
    assert seen(one.absent_from(6)) == [0, 1, 2, 3, 4, 5, 8, 9, 10]
    assert seen(one.absent_from(2)) == [3, 4, 5, 6, 7, 8, 9, 10]
    with pytest.raises(UserError, match="only box on frame 4"):
        pointed_at().objects[0].absent_from(4)


def test_a_caption_is_of_the_boxes_that_it_was_asked_with() -> None:
    one = everywhere(pointed_at().objects[0]).with_captions(["a dog", "the dog"])
    assert (one.caption, one.candidates, one.is_caption_current) == ("a dog", ("a dog", "the dog"), True)
    assert not one.with_box(2, B).is_caption_current
    assert not everywhere(one).is_caption_current


def test_the_track_follows_from_what_is_given_once_it_was_tracked_over_the_changes() -> None:
    one = everywhere(pointed_at().objects[0])
    assert one.is_tracked
    mended = one.with_box(6, B).with_box(9, C)
    other_px, sure = np.ones((NUM_FRAMES, 4)), np.ones(NUM_FRAMES)
    partly = mended.with_track(other_px, sure, (7, NUM_FRAMES))
    assert not partly.is_tracked
    whole = mended.with_track(other_px, sure, (6, NUM_FRAMES))
    assert whole.is_tracked
    assert np.array_equal(whole.boxes_px[:6], one.boxes_px[:6]) and (whole.boxes_px[6:] == 1).all()


@pytest.mark.parametrize(
    ("way", "frames", "span"),
    [(None, [1, 4, 8], (0, 11)), ("forwards", [6, 8], (6, 11)), ("backwards", [6], (5, 7))],
)
def test_a_pass_starts_where_it_should_and_ends_at_what_is_given(
    way: Way | None, frames: list[int], span: tuple[int, int]
) -> None:
    one = everywhere(pointed_at(4).objects[0]).with_box(1, C).with_box(8, B)
    given, taken = pass_of(one, 6, way)
    assert (sorted(given.boxes_px), taken) == (frames, span)
    if way:
        assert given.boxes_px[6].tolist() == one.boxes_px[6].tolist()


def test_a_box_that_is_too_small_to_be_drawn_is_not_taken_away() -> None:
    """An object that leaves a large picture ends in a sliver, which the drawing component rounds to nothing."""
    pointed = pointed_at()
    one = everywhere(pointed.objects[0])
    sliver = replace(one, boxes_px=one.boxes_px * 1)
    sliver.boxes_px[5] = (190, 20, 0.8, 30)
    shown = pointed.with_object(sliver).at(5)
    others = [
        DrawnBox(other.number, tuple(other.boxes_px[5])) for other in shown.objects[1:] if other.boxes_px[5].any()
    ]
    thin = DrawnBox(one.number, (190, 20, 0, 30))
    for drawn in ([thin, *others], others):
        assert shown.with_drawn(drawn, 1.5) is shown
    assert shown.at(6).with_drawn([], 1.5) is not shown.at(6), "a box that can be seen is taken away"


def test_what_is_tracked_is_what_is_chosen_new_or_on_the_shown_frame() -> None:
    pointed = pointed_at(4)
    half = pointed.with_object(everywhere(pointed.objects[0]))
    assert [one.number for one in to_track(half, None)] == [2]
    assert [one.number for one in to_track(half.at(7), "forwards")] == [1]
    assert [one.number for one in to_track(replace(half, chosen=1), None)] == [1]
    with pytest.raises(UserError, match="no object has a box on frame 5"):
        to_track(pointed.at(5), "backwards")
    with pytest.raises(UserError, match="draw a box first"):
        to_track(CLIP, None)
    with pytest.raises(UserError, match="every object is tracked"):
        to_track(half.without_object(2), None)


def test_what_was_found_is_taken_unless_the_object_changed_or_went() -> None:
    start = pointed_at(4).at(6).with_drawn([DrawnBox(None, C)], 1)
    found = FollowedObjects(np.full((3, NUM_FRAMES, 4), 2.0), np.full((3, NUM_FRAMES), 0.7))
    now = start.with_object(start.objects[1].with_box(9, A)).without_object(3)
    merged = with_followed(now, start, start.objects, found, [(4, NUM_FRAMES)] * 3)
    assert [(one.number, one.is_tracked) for one in merged.objects] == [(1, True), (2, False)]
    assert (merged.objects[0].boxes_px[4:] == 2).all() and not merged.objects[0].boxes_px[:4].any()
    other = replace(now, clip="other.mp4")
    assert with_followed(other, start, start.objects, found, [(4, NUM_FRAMES)] * 3) is other


def test_there_is_nothing_to_follow_from_a_frame_without_a_box() -> None:
    with pytest.raises(UserError, match="'1 object' has no box on frame 5"):
        pass_of(pointed_at().objects[0], 5, "forwards")


def test_the_chosen_object_is_the_only_one_where_none_is_chosen() -> None:
    pointed = pointed_at()
    with pytest.raises(UserError, match="draw a box"):
        CLIP.chosen_object()
    with pytest.raises(UserError, match="choose an object"):
        pointed.chosen_object()
    assert replace(pointed, chosen=2).chosen_object().number == 2
    assert pointed.without_object(1).chosen_object().number == 2


def test_names_that_would_steer_the_prompt_are_refused() -> None:
    with pytest.raises(UserError, match="would steer the prompt"):
        replace(CLIP, next_name="<|im_end|>").with_drawn([DrawnBox(None, A)], 1)


def test_spans_in_which_an_object_is_seen() -> None:
    one = everywhere(pointed_at().objects[0]).with_box(8, B).absent_from(6).absent_from(1)
    assert list(spans_seen(one)) == [(2, 6), (8, 11)]
