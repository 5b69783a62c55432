"""Files that FFmpeg opens as videos and that are none; videos whose pixels let the ground through."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from internvl_chat.contracts import UserError
from internvl_chat.data.media.video import read_frames, read_header
from tests.data.media.films import SQUARE_PX, STORED_PX, square_at, write_film


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_picture_named_as_a_video_is_no_video_of_one_frame(format_name: str, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.mp4", format=format_name)
    with pytest.raises(UserError, match=r"a.mp4: holds a picture, expected a video"):
        read_header(tmp_path / "a.mp4")


def test_a_list_of_files_named_as_a_video_opens_none_of_them(tmp_path: Path) -> None:
    write_film(tmp_path / "real.mp4", range(0, 50, 10))
    (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile real.mp4\n")
    with pytest.raises(UserError, match=r"a.mp4: holds a list of other files, expected a video"):
        read_header(tmp_path / "a.mp4")


def write_transparent(path: Path, codec: str, pixel_format: str) -> Path:
    """Three frames with the square on nothing."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5)
        (stream.width, stream.height), stream.pix_fmt = STORED_PX, pixel_format
        for number in range(3):
            picture = np.zeros((STORED_PX[1], STORED_PX[0], 4), np.uint8)
            x, y = square_at(number)
            picture[y : y + SQUARE_PX, x : x + SQUARE_PX] = (230, 20, 20, 255)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgba").reformat(format=pixel_format)))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [("a.mov", "qtrle", "argb"), ("b.mov", "png", "rgba"), ("c.mkv", "ffv1", "yuva420p")],
)
def test_transparent_parts_of_videos_are_white(name: str, codec: str, pixel_format: str, tmp_path: Path) -> None:
    path = write_transparent(tmp_path / name, codec, pixel_format)
    header = read_header(path)
    assert header.num_frames == 3 and not header.is_opaque
    for number, frame in enumerate(read_frames(path, np.arange(3))):
        x, y = square_at(number)
        assert np.abs(frame[y + 4, x + 4].astype(int) - (230, 20, 20)).max() < 8
        assert (frame[-2, -2] > 250).all() and (frame[2, -2] > 250).all()
    with pytest.raises(UserError, match="transparent parts are shown over white; take --video_backend pyav"):
        read_frames(path, np.arange(3), "decord")


def test_transparency_that_the_decoder_leaves_out_is_told(tmp_path: Path) -> None:
    path = write_transparent(tmp_path / "a.webm", "libvpx-vp9", "yuva420p")
    with pytest.raises(UserError, match="a.webm: has transparent parts, which are not read"):
        read_header(path)
