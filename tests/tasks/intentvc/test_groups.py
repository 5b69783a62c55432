"""Groups of clips: by category, size and presence, and where their tracks come from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from internvl_chat.contracts import UserError
from internvl_chat.data.records.annotations import DatasetEntry
from internvl_chat.tasks.intentvc.groups import group_ids, presence_of, read_tracks, size_of


def track(width: int, height: int, present: int = 4, absent: int = 0) -> np.ndarray:
    return np.array([[10, 20, 10 + width, 20 + height]] * present + [[0, 0, 0, 0]] * absent)


@pytest.mark.parametrize(
    ("boxes", "size"),
    [
        (track(100, 199), "small"),
        (track(100, 200), "medium"),
        (track(100, 200, present=1, absent=9), "medium"),
        (track(200, 399), "medium"),
        (track(200, 400), "large"),
        (track(900, 900), "large"),
        (track(5, 5, present=0, absent=3), "never"),
    ],
)
def test_size_is_the_mean_area_of_the_frames_that_have_a_box(boxes: np.ndarray, size: str) -> None:
    assert size_of(boxes) == size


@pytest.mark.parametrize(("absent", "presence"), [(0, "always"), (1, "mostly"), (2, "partly"), (10, "partly")])
def test_presence_is_the_share_of_frames_with_a_box(absent: int, presence: str) -> None:
    assert presence_of(track(30, 40, present=10 - absent, absent=absent)) == presence


def test_ids_are_grouped_and_empty_groups_left_out() -> None:
    tracks = {"dog-1": track(9, 9), "cat-4": track(500, 300, absent=1), "dog-12": track(9, 8)}
    assert group_ids(tracks, tracks) == {
        "category": {"dog": ["dog-1", "dog-12"], "cat": ["cat-4"]},
        "size": {"small": ["dog-1", "dog-12"], "large": ["cat-4"]},
        "presence": {"always": ["dog-1", "dog-12"], "partly": ["cat-4"]},
    }
    assert list(group_ids(tracks)) == ["category"]


def test_tracks_lie_beside_the_videos_or_in_one_file(shapes_entry: DatasetEntry, tmp_path: Path) -> None:
    ids = sorted(path.parent.name for path in shapes_entry.root.glob("*/*/object_bboxes.npy"))[:3]
    tracks = read_tracks(shapes_entry.root, ids)
    assert list(tracks) == ids and all(boxes.shape == (24, 4) for boxes in tracks.values())
    file = tmp_path / "tracks.json"
    file.write_text(json.dumps({i: boxes.tolist() for i, boxes in tracks.items()}))
    for video_id, boxes in read_tracks(file, ids[1:]).items():
        assert np.array_equal(boxes, tracks[video_id])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "expected {id"),
        ({"dog-2": [[0, 0, 1, 1]]}, "no track of 'dog-1'"),
        ({"dog-1": [[0, 0, 1]]}, "'dog-1': expected boxes"),
        ({"dog-1": [[0, 0, 1, 1001]]}, "whole numbers 0 to 1000"),
        ({"dog-1": [[0.1, 0.2, 0.9, 0.9]]}, "whole numbers 0 to 1000"),
        ({"dog-1": [[0, 0, 1, 10**30]]}, "'dog-1'"),
        ({"dog-1": []}, "the track has no frame"),
        ({"dog-1": [[0, 0, 1, 1], [3]]}, "'dog-1' is no list of boxes"),
        ({"dog-1": []}, "'dog-1'"),
    ],
)
def test_a_track_that_cannot_be_used_is_named(content: object, said: str, tmp_path: Path) -> None:
    (tmp_path / "tracks.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=said):
        read_tracks(tmp_path / "tracks.json", ["dog-1"])


def test_a_track_missing_beside_a_video_is_named(shapes_root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(shapes_root, tmp_path / "raw"))
    video_id = next(root.glob("*/*/*.mp4")).stem
    with pytest.raises(UserError, match=f"{video_id}.*generate_npy_bboxes"):
        read_tracks(root, [video_id])
