"""The generated dataset: its layout is the challenge's, and its captions are true."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from internvl_chat.data.media.video import read_frames
from internvl_chat.data.synthetic.shapes import COLOURS, HEIGHT_PX, MOTIONS, WIDTH_PX, sample_clip, write_dataset

CLIPS = [sample_clip(np.random.default_rng(seed)) for seed in range(40)]


def captions_of(root: Path, name: str) -> dict[str, list[str]]:
    return json.loads((root / name).read_text())["captions"]


def test_layout_is_the_challenges(shapes_root: Path) -> None:
    train = captions_of(shapes_root, "train.json")
    public, private = (list(captions_of(shapes_root, f"sample_result_{s}.json")) for s in ("public", "private"))
    assert (len(train), len(public), len(private)) == (6, 4, 2)
    assert captions_of(shapes_root, "references_test.json").keys() == {*public, *private}
    for video_id in [*train, *public, *private]:
        folder = shapes_root / video_id.split("-")[0] / video_id
        assert (folder / f"{video_id}.mp4").is_file()
        assert len((folder / "object_bboxes.txt").read_text().splitlines()) == 24
    assert all(len(texts) == 5 for texts in train.values())


def test_two_targets_share_a_clip_and_differ_in_their_box(shapes_root: Path) -> None:
    other = json.loads((shapes_root / "other_target.json").read_text())
    captions = captions_of(shapes_root, "train.json") | captions_of(shapes_root, "references_test.json")
    assert other.keys() == captions.keys()
    for a, b in other.items():
        first, second = (shapes_root / i.split("-")[0] / i for i in (a, b))
        assert other[b] == a != b
        assert (first / f"{a}.mp4").read_bytes() == (second / f"{b}.mp4").read_bytes()
        assert (first / "object_bboxes.txt").read_text() != (second / "object_bboxes.txt").read_text()
        assert not set(captions[a]) & set(captions[b])
    assert sum(a.split("-")[0] == b.split("-")[0] for a, b in other.items()) >= len(other) // 2


def test_the_box_holds_the_colour_that_its_caption_names(shapes_root: Path) -> None:
    captions = captions_of(shapes_root, "train.json")
    for video_id, texts in captions.items():
        folder = shapes_root / video_id.split("-")[0] / video_id
        boxes = np.loadtxt(folder / "object_bboxes.txt", delimiter=",", dtype=int)
        seen = int(np.nonzero(boxes[:, 2])[0][0])
        x, y, w, h = boxes[seen]
        inside = read_frames(folder / f"{video_id}.mp4", np.array([seen]))[0, y : y + h, x : x + w].astype(int)
        colour = next(name for name in COLOURS if f" {name} " in texts[0])
        near = {name: (np.abs(inside - rgb).max(-1) < 45).sum() for name, rgb in COLOURS.items()}
        assert max(near, key=lambda name: near[name]) == colour
        assert all(f" {colour} " in text for text in texts)


def test_objects_move_as_their_caption_says_and_stay_in_the_picture() -> None:
    for item in (item for clip in CLIPS for item in clip.objects):
        (x1, y1, *_), (x2, y2, *_) = item.boxes_px[0], item.boxes_px[-1]
        assert (np.sign(x2 - x1), np.sign(y2 - y1)) == MOTIONS[item.motion]
        assert (item.boxes_px[:, :2] >= -1e-9).all()
        assert (item.boxes_px[:, :2] + item.boxes_px[:, 2:] <= [WIDTH_PX + 1e-9, HEIGHT_PX + 1e-9]).all()


def test_objects_of_a_clip_differ_in_colour_and_motion() -> None:
    for clip in CLIPS:
        assert 2 <= len(clip.objects) <= 3
        assert all(a.colour != b.colour and a.motion != b.motion for a, b in combinations(clip.objects, 2))


@pytest.mark.parametrize("same_category", [False, True])
def test_whether_the_targets_share_their_shape_can_be_chosen(same_category: bool) -> None:
    for seed in range(10):
        first, second, *_ = sample_clip(np.random.default_rng(seed), same_category).objects
        assert (first.shape == second.shape) is same_category


def test_the_same_seed_writes_the_same_dataset(shapes_root: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "again", train_clips=3, public_clips=2, private_clips=1, seed=4, absent_share=0.5)
    names = sorted(p.relative_to(shapes_root) for p in shapes_root.rglob("*") if p.suffix in (".json", ".txt", ".mp4"))
    assert len(names) == 5 + 12 + 12
    assert all((tmp_path / "again" / name).read_bytes() == (shapes_root / name).read_bytes() for name in names)


def test_tracks_lose_their_object_for_three_to_six_frames_or_never(shapes_root: Path) -> None:
    lost = [
        int((np.loadtxt(path, delimiter=",") == 0).all(axis=1).sum())
        for path in shapes_root.glob("*/*/object_bboxes.txt")
    ]
    assert set(lost) <= {0, 3, 4, 5, 6} and 0 in lost and any(lost)


def test_a_used_folder_is_not_written_to(shapes_root: Path) -> None:
    with pytest.raises(FileExistsError, match="not empty"):
        write_dataset(shapes_root, train_clips=1, public_clips=1, private_clips=1)
