"""Media of every kind, small and all of different sizes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NUM_FOLDER_FRAMES, NUM_GIF_FRAMES = 11, 7


def grey(width_px: int, height_px: int, level: int) -> Image.Image:
    return Image.fromarray(np.full((height_px, width_px, 3), level, dtype=np.uint8))


@pytest.fixture(scope="session")
def media_root(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """wide.png 120 x 40, tall.jpg 30 x 50, frames/ of 11 pictures 36 x 24, clip.gif of 7 frames 40 x 30 at 10 a second,
    clip.mp4 of 24 frames 192 x 144 at 12 a second; picture k of frames/ and clip.gif is all of grey 20 * k. Read only.
    """
    root = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(6)
    Image.fromarray(rng.integers(0, 256, (40, 120, 3), dtype=np.uint8)).save(root / "wide.png")
    Image.fromarray(rng.integers(0, 256, (50, 30, 3), dtype=np.uint8)).save(root / "tall.jpg")
    (root / "frames").mkdir()
    for number in range(NUM_FOLDER_FRAMES):
        grey(36, 24, 20 * number).save(root / "frames" / f"{number + 1}.png")
    (root / "frames" / "notes.txt").write_text("no frame")
    first, *others = (grey(40, 30, 20 * number) for number in range(NUM_GIF_FRAMES))
    first.save(root / "clip.gif", save_all=True, append_images=others, duration=100)
    shutil.copyfile(sorted(shapes_root.glob("*/*/*.mp4"))[0], root / "clip.mp4")
    return root
