"""Tiles: against PIL and torchvision's own transforms, one frame at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as reference

from internvl_chat.constants import IMAGENET_MEAN, IMAGENET_STD
from internvl_chat.data.media.transforms import TileTransform, normalise
from internvl_chat.data.media.video import read_frames, stream_frames
from tests.data.clips import write_clip

SIZE_PX = 52


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", 9)


def test_normalising_is_torchvisions_to_the_bit() -> None:
    tiles = np.arange(2 * 16 * 16 * 3, dtype=np.uint8).reshape(2, 16, 16, 3)
    steps = reference.Compose([reference.ToTensor(), reference.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    expected = torch.stack([steps(Image.fromarray(tile)) for tile in tiles])
    assert torch.equal(normalise(tiles), expected)


def test_tiles_are_pils_but_for_rounding(clip: Path) -> None:
    frames = read_frames(clip, np.array([0, 4, 8]))
    tiles = TileTransform(SIZE_PX).tiles(frames)
    expected = np.stack(
        [Image.fromarray(frame).resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC) for frame in frames]
    )
    difference = np.abs(tiles.astype(int) - expected)
    assert tiles.shape == (3, SIZE_PX, SIZE_PX, 3) and tiles.dtype == np.uint8
    assert difference.max() <= 2 and difference.mean() < 0.02


def test_frames_one_by_one_give_the_tiles_of_all_at_once(clip: Path) -> None:
    indices, transform = np.array([0, 2, 2, 7]), TileTransform(SIZE_PX)
    streamed = transform(stream_frames(clip, indices))
    assert torch.equal(streamed, transform(read_frames(clip, indices)))
    assert torch.equal(streamed[1], streamed[2]) and not torch.equal(streamed[0], streamed[1])
    assert streamed.shape == (4, 3, SIZE_PX, SIZE_PX) and streamed.dtype == torch.float32


def test_a_frame_whose_rows_are_padded(tmp_path: Path) -> None:
    """A width whose rows FFmpeg pads in memory."""
    frame = np.zeros((33, 45, 3), np.uint8)
    frame[:, 30:] = 255
    wide = np.zeros((33, 64, 3), np.uint8)
    wide[:, :45] = frame
    transform = TileTransform(SIZE_PX)
    assert np.array_equal(transform.tiles([wide[:, :45]]), transform.tiles([frame]))
