"""Does the caption follow the box? Counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from internvl_chat.boxes import load_boxes, save_boxes
from internvl_chat.commands.control import PROBES
from internvl_chat.contracts import Sample, TrackFile, Turn, UserError
from internvl_chat.inference.requests import Ask, with_tracks
from internvl_chat.scoring.control_record import OWN, ControlRecord, Probe
from internvl_chat.tasks.control.pairs import read_other_targets
from internvl_chat.tasks.control.probes import (
    LEVELS,
    ControlResult,
    check_targets,
    probe_asks,
    probes_of,
)

OTHER = {"dog-1": "dog-2", "dog-2": "dog-1", "cat-1": "cup-1", "cup-1": "cat-1"}
REFERENCES = {
    "dog-1": ["a red dog", "red dog"],
    "dog-2": ["a blue dog"],
    "cat-1": ["a cat"],
    "cup-1": ["a cup", "the cup"],
}
# The ids say nothing of what the objects are.
NAMES = {"dog-1": "dog", "dog-2": "dog", "cat-1": "cat", "cup-1": "cup"}
SWAP, HALF_GONE = Probe("swap", 1.0), Probe("absent", 0.5)


def sample(video_id: str, root: Path = Path("/data")) -> Sample:
    folder = root / video_id
    turns = (Turn("human", "<video>\nwhat?"),)
    track = TrackFile(video_id.split("-")[0], folder / "boxes.npy")
    return Sample(video_id, turns, "line", video_path=folder / "clip.mp4", tracks=(track,))


def boxes_of(ask: Ask) -> list[list[int]]:
    """The track of the ask's last sample."""
    track = ask.samples[-1].tracks[0]
    if isinstance(track, TrackFile):
        return load_boxes(track.path).tolist()
    return (track.corners * 1000).round().astype(int).tolist()


def result_of(right: dict[str, str], swapped: dict[str, str], **more: object) -> ControlResult:
    return ControlResult({OWN: right, SWAP: swapped}, OTHER, REFERENCES, object_names=NAMES, **more)


def test_rates_are_shares_of_exact_captions() -> None:
    result = result_of(
        right={"dog-1": "red dog", "dog-2": "a blue dog", "cat-1": "a cup", "cup-1": "the cup"},
        swapped={"dog-1": "a blue dog", "dog-2": "a blue dog", "cat-1": "the cup", "cup-1": "a cup"},
    )
    assert result.rates() == {
        "right_box": 0.75,  # all but cat-1
        "swapped_box": 0.5,  # dog-1 and cat-1 say what the other box shows
        "swapped_box_same_category": 0.5,  # of the two dogs, dog-1
        "clips": 4,
    }


def test_without_twins_there_is_no_share_of_them() -> None:
    result = result_of({"cat-1": "a cat", "cup-1": "a cup"}, {"cat-1": "a cup", "cup-1": "a cat"})
    assert result.rates() == {"right_box": 1.0, "swapped_box": 1.0, "swapped_box_same_category": None, "clips": 2}


def test_twins_are_told_by_what_the_prompt_calls_them() -> None:
    captions = {OWN: {"a-1": "x", "b-1": "y"}, SWAP: {"a-1": "y", "b-1": "y"}}
    truth = {"a-1": ["x"], "b-1": ["y"]}
    for names, share in (({"a-1": "box", "b-1": "box"}, 0.5), ({"a-1": "box", "b-1": "ball"}, None)):
        result = ControlResult(captions, {"a-1": "b-1", "b-1": "a-1"}, truth, object_names=names)
        assert result.rates()["swapped_box_same_category"] == share


def test_a_point_says_what_changed_and_whose_captions_they_are() -> None:
    right = {"dog-1": "red dog", "dog-2": "a blue dog", "fox-1": "a fox"}
    swapped = {"dog-1": "a blue dog", "dog-2": "a blue dog"}

    def words_shared(texts: dict, truth: dict) -> float:
        return sum(len(set(text.split()) & set(truth[i][0].split())) for i, text in texts.items())

    result = result_of(right, swapped, metric="words", score=words_shared)
    own, swap = result.points()
    assert (own.clips, own.changed, own.own, own.other) == (3, 0.0, 1.0, 0.0)
    # "red dog" and "a blue dog" against their own references; of the fox nothing is known.
    assert (own.score_own, own.score_other) == (2 + 3, 1 + 2)
    assert (swap.clips, swap.changed, swap.own, swap.other) == (2, 0.5, 0.5, 0.5)
    assert (swap.score_own, swap.score_other) == (2 + 3, 3 + 2)
    table = result.table().splitlines()
    assert len(table) == 3 and "words" in table[0]
    assert "5.00 (+0.00), 5.00 (+2.00)" in table[2]
    # Of three clips the swap is asked of two, and held against those two.
    more = ControlResult(result.captions, OTHER, {**REFERENCES, "fox-1": ["a fox"]}, "words", words_shared)
    own, swap = more.points()
    assert (own.score_own, swap.base_own) == (2 + 3 + 2, 2 + 3)


def test_a_caption_that_is_missing_has_not_changed() -> None:
    result = ControlResult({OWN: {"a-1": "x", "b-1": "y"}, HALF_GONE: {"a-1": "x", "b-1": "z", "c-1": "w"}}, {}, {})
    assert [point.changed for point in result.points()] == [0.0, 0.5]


def test_nothing_is_judged_without_references() -> None:
    result = ControlResult({OWN: {"fox-1": "a fox"}, HALF_GONE: {"fox-1": "an ox"}}, {}, {})
    assert [(p.changed, p.own, p.other, p.score_own) for p in result.points()] == [
        (0.0, None, None, None),
        (1.0, None, None, None),
    ]


@pytest.fixture
def asks(tmp_path: Path) -> list[Ask]:
    """Four clips with tracks of five frames, the second frame of each without its object."""
    made = []
    for number, video_id in enumerate(OTHER):
        boxes = np.array([[100, 200, 300, 600]] * 5) + 10 * number
        boxes[1] = 0
        (tmp_path / video_id).mkdir()
        save_boxes(tmp_path / video_id / "boxes.npy", boxes)
        made.append(Ask(video_id, (sample(video_id, tmp_path),) * 2))
    return made


def test_every_probe_asks_the_same_with_another_track(asks: list[Ask], tmp_path: Path) -> None:
    probes = probes_of(["swap", "null", "jitter", "swap"])
    assert [p.name for p in probes] == ["own", "swap", "null", *["jitter"] * len(LEVELS["jitter"])]
    other = {"dog-1": asks[1], "cup-1": asks[2]}
    asked = probe_asks(asks, probes, other)
    assert [ask.id for ask in asked[SWAP]] == ["dog-1 swap 1", "cup-1 swap 1"]
    assert asked[OWN] == asks
    every = [ask for of_probe in asked.values() for ask in of_probe]
    assert len({ask.id for ask in every}) == len(every) == 4 + 2 + 4 + 4 * len(LEVELS["jitter"])
    for ask in every:
        own = next(a for a in asks if a.id == ask.id.split()[0])
        assert [with_tracks(s, own.samples[0].tracks) for s in ask.samples] == list(own.samples)
    assert boxes_of(asked[SWAP][0]) == boxes_of(asks[1])
    assert not np.any(boxes_of(asked[Probe("null", 1.0)][2]))


def test_an_unreadable_track_is_left_to_be_named_later(asks: list[Ask], tmp_path: Path) -> None:
    asks[2].samples[0].tracks[0].path.unlink()
    asked = probe_asks(asks, [HALF_GONE], {})[HALF_GONE]
    assert asked[2].samples == asks[2].samples
    assert asked[1].samples != asks[1].samples


@pytest.mark.parametrize(
    ("ids", "other", "references", "said"),
    [
        (["fox-1"], OTHER, REFERENCES, "swap: no clip .* second object"),
        (["dog-1"], {"dog-1": "fox-9"}, REFERENCES, "fox-9: has no reference"),
        (list(OTHER), OTHER, {k: v for k, v in REFERENCES.items() if k != "cat-1"}, "cat-1: has no reference"),
    ],
)
def test_a_swap_that_cannot_be_judged_is_told(ids: list, other: dict, references: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_targets(ids, other, references, swap=True)
    check_targets(ids, other, references, swap=False)


def test_the_command_offers_the_probes_that_there_are() -> None:
    assert set(PROBES) == set(LEVELS)


@pytest.mark.parametrize("content", [["a-1"], {"a-1": 2}, "a-1"])
def test_other_targets_that_are_none_are_named(content: object, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="other.json: expected"):
        read_other_targets(tmp_path / "other.json")


@pytest.mark.parametrize(
    "change",
    [
        {"points": []},
        {"points": [{"probe": "own", "level": 0, "clips": 1, "changed": "much"}]},
        {"captions": {"own 0": {"a-1": 3}}},
        {"captions": []},
    ],
)
def test_a_record_of_control_that_is_none_is_named(change: dict[str, object], tmp_path: Path) -> None:
    right = {"metric": "CIDEr", "points": [{"probe": "own", "level": 0, "clips": 1, "changed": 0}], "captions": {}}
    path = tmp_path / "control.json"
    path.write_text(json.dumps(right))
    assert len(ControlRecord.read(path).points) == 1
    path.write_text(json.dumps({**right, **change}))
    with pytest.raises(UserError, match="control.json: expected a file that"):
        ControlRecord.read(path)
