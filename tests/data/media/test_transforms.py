"""Tiles: against PIL and torchvision's own transforms, one frame at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as reference

from internvl_chat.constants import IMAGENET_MEAN, IMAGENET_STD, NORMALISATIONS
from internvl_chat.data.media.transforms import TileTransform, normalise
from internvl_chat.data.media.video import read_frames, stream_frames
from internvl_chat.model.pixels import normalised
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_normalised_where_they_are_seen_to_the_bit(dtype: torch.dtype) -> None:
    """Each tile in its own way, as a pack of mixed datasets may hold them; boxes and others are left alone."""
    tiles = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    tiles[0] = np.arange(768).reshape(16, 16, 3) % 256
    planes, boxes = torch.from_numpy(tiles).permute(0, 3, 1, 2), torch.ones(3, 4)
    ways = torch.tensor([0, 2, 1], dtype=torch.uint8)
    found = normalised({"pixel_values": planes, "normalisation": ways, "boxes": boxes}, dtype)
    names = [list(NORMALISATIONS)[way] for way in ways.tolist()]
    expected = torch.cat([normalise(tile[None], name) for tile, name in zip(tiles, names, strict=True)])
    assert found.keys() == {"pixel_values", "boxes"} and found["boxes"] is boxes
    assert torch.equal(found["pixel_values"], expected.to(dtype))
    assert normalised(found, dtype) is found and normalised({}, dtype) == {}


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
