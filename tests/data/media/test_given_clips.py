"""Frames in memory are what a folder of their files is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from internvl_chat.contracts import UserError
from internvl_chat.data.media.given_clips import clip_path, picture_path
from internvl_chat.data.media.pictures import read_picture


def test_frames_in_memory_are_shown_as_their_files_are(tmp_path: Path) -> None:
    """Transparent over white, 16 bits scaled, turned as EXIF says; what a file is refused for is refused."""
    grey = np.linspace(0, 65535, 12 * 9).reshape(9, 12).astype(np.uint16)
    turned, exif = Image.effect_noise((12, 9), 90).convert("RGB"), Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "t.jpg", exif=exif)
    pictures = {
        "deep.png": Image.fromarray(grey),
        "clear.png": Image.new("RGBA", (12, 9), (0, 0, 0, 0)),
        "t.jpg": Image.open(tmp_path / "t.jpg"),
        "grey.png": Image.effect_noise((12, 9), 90),
    }
    for name, picture in pictures.items():
        if name != "t.jpg":
            picture.save(tmp_path / name)
        (written,) = clip_path([picture], tmp_path / "kept").iterdir()
        assert np.array_equal(read_picture(written), read_picture(tmp_path / name)), name
        assert read_picture(picture_path(picture, tmp_path / "kept")).shape == read_picture(tmp_path / name).shape
    with pytest.raises(UserError, match="frame 0 of the clip: holds floating-point numbers"):
        clip_path([Image.fromarray(np.zeros((9, 12), np.float32))], tmp_path / "kept")
    frames = [Image.new("L", (9, 8), shade) for shade in (0, 90, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "a.gif") as gif:
        with pytest.raises(UserError, match=r"pictures are one object of several frames, .*frame.copy\(\)"):
            clip_path(list(ImageSequence.Iterator(gif)), tmp_path / "kept")
        copies = clip_path([frame.copy() for frame in ImageSequence.Iterator(gif)], tmp_path / "kept")
    assert [int(read_picture(path)[0, 0, 0]) for path in sorted(copies.iterdir())] == [0, 90, 200]
