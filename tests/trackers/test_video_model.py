"""Tiny SAM 2, SAM 3 and EdgeTAM as trackers: that they run, and that what they forget they did not need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import Sam3TrackerConfig

from internvl_chat.contracts import UserError
from internvl_chat.trackers.choosing import choose_tracker
from internvl_chat.trackers.video_model import VideoModel, VideoModelTracker, _box_around
from tests.helpers import tiny_config
from tests.trackers.moving import boxes_px, frames
from tests.trackers.tiny_models import POINTERS, write_edgetam, write_sam2, write_sam3, write_sam3_tracker

KINDS = ("sam2", "edgetam", "sam3", "sam3_tracker")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model folder a kind; the last one is the tracker out of the whole SAM 3."""
    found = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    write_sam2(found["sam2"])
    write_edgetam(found["edgetam"])
    write_sam3(found["sam3"])
    write_sam3_tracker(found["sam3"], found["sam3_tracker"])
    return found


def followed(tracker: VideoModelTracker) -> np.ndarray:
    """Boxes and confidence [T, N, 5]: the second object comes in later, and the first is corrected."""
    given = {0: {0: boxes_px(0)[0]}, 3: {1: boxes_px(1)[3]}, 11: {0: boxes_px(0)[11]}}
    seen = [tracker.step(frame, given.get(t, {})) for t, frame in enumerate(frames()[:18])]
    return np.stack([np.column_stack([one.boxes_px, one.confidence]) for one in seen])


def assert_alike(one: np.ndarray, other: np.ndarray, atol: float = 2e-6) -> None:
    """Equal confidences, and boxes but for few: a logit at the mask's threshold may fall on either side of it."""
    differs = np.abs(one - other)
    assert differs[..., 4].max() < atol
    assert (differs.max(-1) > atol).mean() < 0.1, differs.max(-1)


def forget_everything(tracker: VideoModelTracker) -> None:
    for outputs in tracker._session.output_dict_per_obj.values():
        outputs["non_cond_frame_outputs"].clear()


@pytest.mark.parametrize("kind", KINDS[:3])
def test_forgetting_keeps_memory_flat_and_the_boxes_the_same(
    folders: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = VideoModel(folders[kind])
    tracker = model.tracker(2)
    track = followed(tracker)
    session = tracker._session
    assert not session.processed_frames
    for number, begun in ((0, 2), (1, 1)):
        outputs = session.output_dict_per_obj[number]
        assert (len(outputs["cond_frame_outputs"]), len(outputs["non_cond_frame_outputs"])) == (begun, POINTERS)
    # What was given stands; elsewhere the model finds something, and says how sure it is.
    assert np.array_equal(track[[0, 11], 0], np.column_stack([boxes_px(0)[[0, 11]], [1, 1]]))
    free = track[1:, 0][np.arange(1, len(track)) != 11]
    assert free[:, 2:4].any() and (free[:, 4] > 0).all() and (free[:, 4] < 1).all()
    monkeypatch.setattr(VideoModelTracker, "_forget", lambda self: None)
    keeping = model.tracker(2)
    assert_alike(followed(keeping), track)
    assert len(keeping._session.processed_frames) == len(track)
    # Without any memory the confidences are others, so that the comparison can fail.
    monkeypatch.setattr(VideoModelTracker, "_forget", forget_everything)
    assert np.abs(followed(model.tracker(2)) - track)[..., 4].max() > 1e-5


def test_a_whole_sam3_is_its_tracker(folders: dict[str, Path]) -> None:
    whole, alone = (followed(VideoModel(folders[kind]).tracker(2)) for kind in ("sam3", "sam3_tracker"))
    # Without any memory they differ by 2e-3; products of the same numbers elsewhere in memory by a little.
    assert_alike(whole, alone, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_is_a_tracker_by_its_name(folders: dict[str, Path], kind: str) -> None:
    settings = choose_tracker(str(folders[kind]))
    assert settings.min_confidence == 0.5
    sighting = settings.make(2).step(frames()[0], {1: boxes_px(1)[0]})
    assert sighting.boxes_px.tolist() == [[0, 0, 0, 0], boxes_px(1)[0].tolist()]
    assert sighting.confidence.tolist() == [0, 1]


def test_a_box_is_the_smallest_around_the_mask() -> None:
    mask = np.zeros((9, 12), dtype=bool)
    assert not _box_around(mask).any()
    mask[2:5, 3] = mask[6, 8] = True
    assert _box_around(mask).tolist() == [3, 2, 6, 5]


def test_a_model_that_follows_nothing_is_refused(tmp_path: Path) -> None:
    for config, kind in ((tiny_config(), "internvl"), (Sam3TrackerConfig(), "sam3_tracker")):
        config.save_pretrained(tmp_path)
        with pytest.raises(UserError, match=f"is a '{kind}' model, expected one of sam2_video"):
            VideoModel(tmp_path)
