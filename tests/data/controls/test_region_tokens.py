"""Region tokens: slots in the question and what fills them, tile by tile."""

from __future__ import annotations

import numpy as np
import pytest

from internvl_chat.contracts import Turn, UserError
from internvl_chat.data.controls.base import Scene
from internvl_chat.data.controls.region_tokens import RegionTokens
from internvl_chat.data.media.tiling import WHOLE, View, grid_views

# Seven frames; the airplane is seen in five of them, the dog in two, the bird in none.
AIRPLANE = np.array([[n * 10, 20, n * 10 + 100, 90] if n not in (1, 6) else [0, 0, 0, 0] for n in range(7)])
DOG = np.array([[5, 5, 50, 50] if n in (2, 6) else [0, 0, 0, 0] for n in range(7)])
BIRD = np.zeros((7, 4), dtype=np.int64)
SCENE = Scene((("airplane", AIRPLANE), ("dog", DOG), ("bird", BIRD)), "Frame-1")
FRAMES = [View(number, WHOLE) for number in range(7)]
QUESTION = Turn("human", "<video>\nWhat happens?")


def test_slots_are_as_many_as_tiles_and_tokens_allow() -> None:
    control = RegionTokens(region_tokens=3, region_objects=3)
    assert control.words(QUESTION, SCENE) == (
        "<video>\nWhat happens? The airplane is <bbox>, along its track <bbox><bbox><bbox>. "
        "The dog is <bbox>, along its track <bbox><bbox>. The bird is not to be seen."
    )
    tensors = control.tensors(SCENE, FRAMES)
    assert tensors["region_slots"].tolist() == [[4, 3, 0], *[[-1] * 3] * 6]
    assert tensors["region_roles"].T.tolist() == [[1, 0, 1, 2, 1, 0, 0], [0, 0, 1, 0, 0, 0, 3], [0] * 7]
    assert tensors["region_boxes"][3, 0].tolist() == AIRPLANE[3].tolist()


def test_a_question_of_artemis_mentions_its_object_itself() -> None:
    asked = Turn("human", "<video>\nWhat is the <bbox> doing in this video?")
    control = RegionTokens(region_tokens=4)
    assert control.words(asked, SCENE) == (
        "<video>\nWhat is the <bbox> doing in this video? This is the region's video tracking list: "
        "<bbox><bbox><bbox><bbox>."
    )
    unseen = Scene((("bird", BIRD),), "Frame-1")
    assert control.words(asked, unseen) == (
        "<video>\nWhat is the bird doing in this video? The bird is not to be seen."
    )


def test_clusters_are_offered_more_tiles_than_slots() -> None:
    control = RegionTokens(region_tokens=2, region_choice="cluster")
    tensors = control.tensors(SCENE, FRAMES)
    assert tensors["region_roles"][:, 0].tolist() == [1, 0, 1, 3, 1, 0, 0]
    assert tensors["region_slots"][0].tolist() == [3]
    assert control.words(QUESTION, SCENE).count("<bbox>") == 3


def test_of_several_tiles_the_whole_picture_is_taken_and_else_the_one_with_the_box() -> None:
    scene = Scene((("cat", np.array([[600, 100, 900, 300], [0, 0, 1000, 100]])),), "Image-1")
    with_thumbnail = [*grid_views(0, 2, 2, use_thumbnail=True), View(1, WHOLE)]
    roles = RegionTokens(region_tokens=2).tensors(scene, with_thumbnail)["region_roles"]
    assert roles[:, 0].tolist() == [0, 0, 0, 0, 1, 3]
    without = [*grid_views(0, 2, 2, use_thumbnail=False), View(1, WHOLE), View(0, (0.5, 0, 1, 0.4))]
    tensors = RegionTokens(region_tokens=2).tensors(scene, without)
    assert tensors["region_roles"][:, 0].tolist() == [0, 1, 0, 0, 3, 0]
    assert tensors["region_boxes"][1, 0].tolist() == [200, 200, 800, 600]


def test_regions_are_shares_of_what_is_seen_or_as_the_original_has_it() -> None:
    """Of a picture of 40 x 30 pixels the middle 30 x 30 are seen."""
    scene = Scene((("cat", np.array([[250, 100, 500, 300]])),), "Frame-1")
    seen = [View(0, (0.125, 0, 0.875, 1))]
    aligned = RegionTokens(region_tokens=1).tensors(scene, seen)["region_boxes"]
    original = RegionTokens(region_tokens=1, region_frame="picture").tensors(scene, seen)["region_boxes"]
    assert aligned.tolist() == [[[167, 100, 500, 300]]]
    assert original.tolist() == [[[250, 100, 500, 300]]]


def test_a_sample_without_a_track_has_no_slots_and_all_tensors() -> None:
    tensors = RegionTokens(region_tokens=4).tensors(Scene((), "Frame-1"), FRAMES)
    assert not tensors["region_roles"].any() and tensors["region_slots"].tolist() == [[0], *[[-1]] * 6]


def test_switched_off_it_says_and_gives_nothing() -> None:
    assert RegionTokens().words(QUESTION, SCENE) == QUESTION.text
    assert RegionTokens().tensors(SCENE, FRAMES) == {}


@pytest.mark.parametrize(
    "flags", [{"region_tokens": -1}, {"region_objects": 0}, {"region_choice": "last"}, {"region_frame": "x"}]
)
def test_settings_are_held_to_what_they_can_be(flags: dict[str, object]) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(flags))}"):
        RegionTokens(**flags)
