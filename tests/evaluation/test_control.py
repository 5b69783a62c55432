"""Does the caption follow the box? Counted by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from internvl_chat.contracts import Sample, TrackFile, Turn, UserError
from internvl_chat.evaluation.control import ControlResult, measure_control
from internvl_chat.evaluation.predict import with_boxes_of

OTHER = {"dog-1": "dog-2", "dog-2": "dog-1", "cat-1": "cup-1", "cup-1": "cat-1"}
REFERENCES = {
    "dog-1": ["a red dog", "red dog"],
    "dog-2": ["a blue dog"],
    "cat-1": ["a cat"],
    "cup-1": ["a cup", "the cup"],
}


def sample(video_id: str) -> Sample:
    folder = Path("/data") / video_id
    turns = (Turn("human", "<video>\nwhat?"),)
    track = TrackFile(video_id.split("-")[0], folder / "boxes.npy")
    return Sample(video_id, turns, "line", video_path=folder / "clip.mp4", tracks=(track,))


SAMPLES = [sample(video_id) for video_id in OTHER]


def test_rates_are_shares_of_exact_captions() -> None:
    result = ControlResult(
        right={"dog-1": "red dog", "dog-2": "a blue dog", "cat-1": "a cup", "cup-1": "the cup"},
        swapped={"dog-1": "a blue dog", "dog-2": "a blue dog", "cat-1": "the cup", "cup-1": "a cup"},
        other_target=OTHER,
        references=REFERENCES,
    )
    assert result.rates() == {
        "right_box": 0.75,  # all but cat-1
        "swapped_box": 0.5,  # dog-1 and cat-1 say what the other box shows
        "swapped_box_same_category": 0.5,  # of the two dogs, dog-1
        "clips": 4,
    }


def test_without_twins_their_share_is_zero() -> None:
    pair = {i: OTHER[i] for i in ("cat-1", "cup-1")}
    captions = {"cat-1": "a cat", "cup-1": "a cup"}
    result = ControlResult(captions, {"cat-1": "a cup", "cup-1": "a cat"}, pair, REFERENCES)
    assert result.rates() == {"right_box": 1.0, "swapped_box": 1.0, "swapped_box_same_category": 0.0, "clips": 2}


def test_each_clip_is_captioned_with_its_own_box_and_with_the_others() -> None:
    def told_by_its_boxes(asked: Sequence[Sample]) -> Iterable[str]:
        return (REFERENCES[s.tracks[0].path.parent.name][0] for s in asked)

    def deaf_to_boxes(asked: Sequence[Sample]) -> Iterable[str]:
        return (REFERENCES[s.video_path.parent.name][0] for s in asked)

    led = measure_control(SAMPLES, OTHER, REFERENCES, told_by_its_boxes)
    assert led.swapped == {"dog-1": "a blue dog", "dog-2": "a red dog", "cat-1": "a cup", "cup-1": "a cat"}
    assert (led.rates()["right_box"], led.rates()["swapped_box"]) == (1.0, 1.0)
    deaf = measure_control(SAMPLES, OTHER, REFERENCES, deaf_to_boxes).rates()
    assert (deaf["right_box"], deaf["swapped_box"]) == (1.0, 0.0)


def test_nothing_but_the_box_differs() -> None:
    swapped = with_boxes_of(SAMPLES[2], SAMPLES[3])
    assert swapped.tracks[0].path == SAMPLES[3].tracks[0].path
    assert (swapped.id, swapped.video_path, swapped.turns, swapped.object_name) == (
        SAMPLES[2].id,
        SAMPLES[2].video_path,
        SAMPLES[2].turns,
        SAMPLES[2].object_name,
    )


@pytest.mark.parametrize(
    ("samples", "other", "references", "said"),
    [
        (SAMPLES, {**OTHER, "dog-2": "fox-9"}, REFERENCES, "dog-2: no other target"),
        (SAMPLES[:1], OTHER, REFERENCES, "dog-1: no other target"),
        (SAMPLES, OTHER, {k: v for k, v in REFERENCES.items() if k != "cat-1"}, "cat-1: has no reference"),
    ],
)
def test_a_clip_that_cannot_be_judged_is_named(samples: list, other: dict, references: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        measure_control(samples, other, references, lambda asked: ["text"] * len(asked))
