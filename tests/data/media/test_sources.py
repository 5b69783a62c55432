"""Pictures from files of every kind, and what is refused before it is decoded."""

from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.checking.headers import read_media
from internvl_chat.data.media import sources as media
from internvl_chat.data.media.sources import (
    MediaHeader,
    content_mark,
    frame_files,
    missing_numbers,
    read_media_header,
    read_pictures,
)
from tests.data.clips import write_clip
from tests.data.conftest import NUM_FOLDER_FRAMES, NUM_GIF_FRAMES, grey


def video(path: Path, root: Path | None = None) -> Sample:
    return Sample("v", (), "a.jsonl:1", video_path=path, root=root)


def images(*paths: Path) -> Sample:
    return Sample("i", (), "a.jsonl:1", image_paths=paths)


def png_of_size(path: Path, width_px: int, height_px: int) -> None:
    """A PNG whose header promises a size, with hardly any data behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9)))


def test_headers_say_what_is_there(media_root: Path) -> None:
    assert read_media_header(Sample("t", (), "a.jsonl:1")) == MediaHeader(0, ())
    assert read_media_header(images(media_root / "wide.png", media_root / "tall.jpg")) == MediaHeader(
        2, ((120, 40), (30, 50))
    )
    assert read_media_header(video(media_root / "frames")) == MediaHeader(NUM_FOLDER_FRAMES, ((36, 24),))
    assert read_media_header(video(media_root / "clip.gif")) == MediaHeader(NUM_GIF_FRAMES, ((40, 30),), 10)
    assert read_media_header(video(media_root / "clip.mp4")) == MediaHeader(24, ((192, 144),), 12)


def test_frames_of_a_folder_come_in_natural_order(media_root: Path) -> None:
    assert [p.name for p in frame_files(media_root / "frames")] == [f"{n}.png" for n in range(1, 12)]
    frames = read_pictures(video(media_root / "frames"), np.array([0, 1, 9, 10, 10]))
    assert isinstance(frames, np.ndarray) and frames.shape == (5, 24, 36, 3)
    assert frames[:, 0, 0, 0].tolist() == [0, 20, 180, 200, 200]


def test_frames_of_a_gif(media_root: Path) -> None:
    frames = read_pictures(video(media_root / "clip.gif"), np.array([0, 3, 3, 6]))
    assert np.abs(np.asarray(frames)[:, 5, 5, 1].astype(int) - [0, 60, 60, 120]).max() <= 2


def test_images_keep_their_sizes_and_become_rgb(media_root: Path, tmp_path: Path) -> None:
    Image.new("LA", (9, 4), (70, 255)).save(tmp_path / "grey.png")
    wide, grey_picture = read_pictures(images(media_root / "wide.png", tmp_path / "grey.png"), np.array([0, 1]))
    assert np.array_equal(wide, np.asarray(Image.open(media_root / "wide.png")))
    assert grey_picture.shape == (4, 9, 3) and (grey_picture == 70).all()


def test_a_video_whose_header_does_not_say_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_clip(tmp_path / "clip.mkv", 24)
    assert read_media_header(video(clip)).num_pictures == 24
    monkeypatch.setattr(media, "MAX_VIDEO_FRAMES", 20)
    with pytest.raises(UserError, match=r"clip.mkv: has 24 frames, expected 1 to 20"):
        read_media_header(video(clip))


def test_a_picture_that_would_fill_the_memory_is_refused_by_its_header(tmp_path: Path) -> None:
    png_of_size(tmp_path / "bomb.png", 60_000, 60_000)
    png_of_size(tmp_path / "big.png", 10_000, 9_000)
    for name in ("bomb.png", "big.png"):
        with pytest.raises(UserError, match=f"{name}: is .*(60000 x 60000|10000 x 9000|DecompressionBomb|exceeds)"):
            read_media_header(images(tmp_path / name))


@pytest.mark.parametrize("content", [None, b"", b"no picture", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_a_file_that_is_no_picture_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path}: "):
        read_media_header(images(path))


def test_a_picture_that_is_cut_off_is_named(media_root: Path, tmp_path: Path) -> None:
    for name in ("wide.png", "tall.jpg"):
        content = (media_root / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(UserError, match=f"{tmp_path / name}: cannot be decoded"):
            read_pictures(images(tmp_path / name), np.array([0]))


def test_a_folder_without_frames_is_named(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "notes.txt").touch()
    with pytest.raises(UserError, match=r"clip: holds no frames"):
        read_media_header(video(tmp_path / "clip"))


def test_frames_of_one_folder_have_one_size(media_root: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(media_root / "frames", tmp_path / "frames"))
    grey(37, 24, 5).save(folder / "4.png")
    with pytest.raises(UserError, match=r"4.png: is 37 x 24, expected 36 x 24"):
        read_pictures(video(folder), np.array([0, 3]))


def test_a_frame_that_links_out_of_the_root_is_refused(media_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "frames"
    folder.mkdir(parents=True)
    shutil.copyfile(media_root / "frames" / "1.png", folder / "1.png")
    (folder / "2.png").symlink_to(folder / "1.png")
    root = tmp_path / "data"
    assert read_media_header(video(folder, root)).num_pictures == 2
    (folder / "3.png").symlink_to(media_root / "frames" / "3.png")
    with pytest.raises(UserError, match=r"3.png: a link leads out"):
        read_media_header(video(folder, root))
    assert read_media_header(video(folder, None)).num_pictures == 3


@pytest.mark.parametrize("name", ["a.png", "a.WEBP"])
def test_a_picture_is_no_video(name: str, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / name)
    with pytest.raises(UserError, match=f"{name}: is a picture, expected a video or a folder of frames: .* as 'image'"):
        read_media_header(Sample("a", (), "here", video_path=tmp_path / name))


def test_two_pictures_of_one_frame_are_told(media_root: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(media_root / "frames", tmp_path / "frames"))
    grey(36, 24, 5).save(folder / "4.jpg")
    with pytest.raises(UserError, match="4.jpg and 4.png stand for one frame"):
        read_media_header(video(folder))


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [([1, 2, 3, 5, 6], [4]), ([0, 10, 20, 50], [30, 40]), ([1, 2, 3, 4], []), ([1, 5, 6, 20, 21], []), ([1, 3, 4], [])],
)
def test_numbers_that_a_folder_leaves_out(numbers: list[int], missing: list[int]) -> None:
    assert missing_numbers([Path(f"clip_{number:05d}.jpg") for number in numbers]) == missing


def test_a_frame_that_is_empty_or_of_another_size_is_found_before_training(media_root: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(media_root / "frames", tmp_path / "frames"))
    assert read_media(folder, "video").header is not None
    grey(37, 24, 5).save(folder / "4.png")
    assert read_media(folder, "video").found == "frame 4.png is 37 x 24, the first one is 36 x 24"
    (folder / "4.png").write_bytes(b"")
    assert read_media(folder, "video").found == "frame 4.png is empty"


@pytest.mark.parametrize("suffix", ["webp", "bmp", "tif", "ppm", "png", "jpg"])
def test_pictures_of_every_kind_that_end_early_are_found_before_training(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.effect_noise((90, 70), 60).convert("RGB").save(path)
    assert read_media(path, "image").header is not None
    path.write_bytes(path.read_bytes()[:-700])
    facts = read_media(path, "image")
    assert facts.fault in ("media-truncated", "media-unreadable") and facts.header is None


def test_a_video_is_no_picture(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.mp4", format="PNG")
    with pytest.raises(
        UserError, match="a.mp4: is a video, expected a picture: give it as --video, in a record as 'video'"
    ):
        read_media_header(Sample("a", (), "here", image_paths=(tmp_path / "a.mp4",)))


def test_frames_that_are_not_read_are_told_and_not_left_out(tmp_path: Path) -> None:
    for name in ("1.png", "2.heic", "3.png"):
        Image.new("RGB", (30, 20)).save(tmp_path / name, format="PNG")
    with pytest.raises(UserError, match="1 frames such as 2.heic are not read: save them as JPEG or PNG first"):
        read_media_header(Sample("a", (), "here", video_path=tmp_path))


def test_folders_of_equal_names_and_sizes_are_told_apart(tmp_path: Path) -> None:
    """Pictures that are not packed are of one size and begin alike, whatever they show."""
    for name, left in (("a", 3), ("b", 40), ("c", 3)):
        (tmp_path / name).mkdir()
        for number in range(5):
            picture = Image.new("RGB", (64, 48))
            picture.putpixel((left, 20 + number), (255, 0, 0))
            picture.save(tmp_path / name / f"{number}.bmp")
    marks = {name: content_mark(tmp_path / name) for name in "abc"}
    assert marks["a"] == marks["c"] != marks["b"]
    (tmp_path / "a" / "3.bmp").write_bytes((tmp_path / "b" / "3.bmp").read_bytes())
    assert content_mark(tmp_path / "a") != marks["a"]
