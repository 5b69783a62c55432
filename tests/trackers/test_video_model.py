"""A tiny SAM 2 of transformers as a tracker: that it runs, and that what it forgets it did not need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Sam2ImageProcessor,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam2VideoProcessor,
    Sam2VideoVideoProcessor,
)

from internvl_chat.contracts import UserError
from internvl_chat.trackers.choosing import choose_tracker
from internvl_chat.trackers.video_model import VideoModel, VideoModelTracker, _box_around
from tests.helpers import randomise, tiny_config
from tests.trackers.moving import boxes_px, frames

SIDE_PX, WIDTH, MEMORIES, POINTERS = 64, 128, 3, 5


def tiny_model() -> Sam2VideoModel:
    """A SAM 2 with every part of the real one, that believes to see what it was given."""
    grids = [[SIDE_PX // k, SIDE_PX // k] for k in (4, 8, 16)]
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 12,
        "image_size": [SIDE_PX, SIDE_PX],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [12, 24, 48, 96],
        "window_size_per_stage": [8, 4, 4, 2],
        "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [3, 3],
    }
    vision: dict[str, Any] = {"model_type": "sam2_vision_model", "backbone_config": backbone, "fpn_hidden_size": WIDTH}
    vision |= {"backbone_channel_list": [96, 48, 24, 12], "backbone_feature_sizes": grids}
    config = Sam2VideoConfig(
        image_size=SIDE_PX,
        vision_config=vision,
        prompt_encoder_config={"hidden_size": WIDTH, "image_size": SIDE_PX, "patch_size": 16},
        mask_decoder_config={"hidden_size": WIDTH, "mlp_dim": 40, "num_attention_heads": 4, "iou_head_hidden_dim": 28},
        memory_attention_hidden_size=WIDTH,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=36,
        memory_attention_rope_feat_sizes=grids[2],
        memory_encoder_hidden_size=WIDTH,
        mask_downsampler_embed_dim=WIDTH,
        memory_fuser_embed_dim=WIDTH,
        memory_fuser_intermediate_dim=44,
        memory_fuser_num_layers=1,
        num_maskmem=MEMORIES,
        max_object_pointers_in_encoder=POINTERS,
    )
    model = Sam2VideoModel(config).eval()
    randomise(model.parameters(), std=0.2)
    with torch.no_grad():
        model.mask_decoder.pred_obj_score_head.proj_out.bias += 1  # it sees the objects
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, size = tmp_path_factory.mktemp("sam2"), {"height": SIDE_PX, "width": SIDE_PX}
    tiny_model().save_pretrained(path)
    images = Sam2ImageProcessor(size=size, mask_size={"height": SIDE_PX // 4, "width": SIDE_PX // 4})
    Sam2VideoProcessor(images, Sam2VideoVideoProcessor(size=size), target_size=SIDE_PX).save_pretrained(path)
    return path


def followed(tracker: VideoModelTracker) -> np.ndarray:
    """Boxes and confidence [T, N, 5]: the second object comes in later, and the first is corrected."""
    given = {0: {0: boxes_px(0)[0]}, 3: {1: boxes_px(1)[3]}, 11: {0: boxes_px(0)[11]}}
    seen = [tracker.step(frame, given.get(t, {})) for t, frame in enumerate(frames())]
    return np.stack([np.column_stack([one.boxes_px, one.confidence]) for one in seen])


def forget_everything(tracker: VideoModelTracker) -> None:
    for outputs in tracker._session.output_dict_per_obj.values():
        outputs["non_cond_frame_outputs"].clear()


def test_forgetting_keeps_memory_flat_and_the_boxes_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = VideoModel(folder)
    tracker = model.tracker(2)
    track = followed(tracker)
    session = tracker._session
    assert not session.processed_frames
    for number, begun in ((0, 2), (1, 1)):
        outputs = session.output_dict_per_obj[number]
        assert (len(outputs["cond_frame_outputs"]), len(outputs["non_cond_frame_outputs"])) == (begun, POINTERS)
    monkeypatch.setattr(VideoModelTracker, "_forget", lambda self: None)
    keeping = model.tracker(2)
    assert np.allclose(followed(keeping), track, rtol=0, atol=2e-6)
    assert len(keeping._session.processed_frames) == len(track)
    # Without any memory the confidences are others, so that the comparison can fail.
    monkeypatch.setattr(VideoModelTracker, "_forget", forget_everything)
    assert not np.allclose(followed(model.tracker(2)), track, rtol=0, atol=1e-5)


def test_the_folder_is_a_tracker_by_its_name(folder: Path) -> None:
    settings = choose_tracker(str(folder))
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
    tiny_config().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is a 'internvl' model, expected one of sam2_video"):
        VideoModel(tmp_path)
