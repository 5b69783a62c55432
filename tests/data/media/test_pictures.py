"""Pictures are read as a viewer shows them: turned by EXIF, over white, 16 bits as 8; or refused with what to do."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internvl_chat.contracts import Sample, TrackRows, UserError
from internvl_chat.data.media.pictures import picture_header, picture_size, read_picture
from internvl_chat.data.media.sources import frame_files, read_media_header
from internvl_chat.data.records.tracks import boxes_at
from tests.data.media.films import red_part

STORED_BOX = (20, 10, 60, 50)
ROOM = {"jpg": 12, "webp": 12, "png": 1, "tif": 1}


def photo(path: Path, orientation: int) -> Path:
    """90 x 60, grey with a red square at `STORED_BOX`, to be turned as EXIF's number says."""
    picture = np.full((60, 90, 3), 90, np.uint8)
    picture[10:50, 20:60] = (230, 20, 20)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(path, exif=exif, **({"quality": 95} if path.suffix == ".jpg" else {}))
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ROOM)
def test_photos_are_turned_as_exif_says(suffix: str, orientation: int, tmp_path: Path) -> None:
    path = photo(tmp_path / f"photo.{suffix}", orientation)
    picture = read_picture(path)
    assert picture_size(path)[0] == picture.shape[1::-1] == ((60, 90) if orientation > 4 else (90, 60))
    sample = Sample("photo", (), "a.jsonl:1", image_paths=(path,))
    corners = np.array([STORED_BOX], float)
    for size_px in (None, (90, 60)):
        track = TrackRows("square", np.zeros(1), corners, in_pixels=True, size_px=size_px, in_stored=True)
        box = boxes_at(track, np.array([0]), read_media_header(sample), "here")[0]
        assert np.abs(np.array(red_part(picture)) * 1000 - box).max() <= 1000 * ROOM[suffix] / 60


def test_a_phone_photo_held_upright(tmp_path: Path) -> None:
    picture = read_picture(photo(tmp_path / "photo.png", 6))
    assert np.allclose(np.array(red_part(picture)) * [60, 90, 60, 90], [10, 20, 50, 60])


def test_a_size_that_is_the_stored_one_is_told(tmp_path: Path) -> None:
    sample = Sample("photo", (), "a.jsonl:1", image_paths=(photo(tmp_path / "photo.png", 6),))
    track = TrackRows("square", np.zeros(1), np.array([[1.0, 2, 3, 4]]), in_pixels=True, size_px=(90, 60))
    with pytest.raises(UserError, match="say 90 x 60, the file is 60 x 90.*'counted_in': 'stored'"):
        boxes_at(track, np.array([0]), read_media_header(sample), "here")


def test_exif_behind_the_pixels_of_a_png_counts_too(tmp_path: Path) -> None:
    data = photo(tmp_path / "photo.png", 6).read_bytes()
    at = data.index(b"eXIf") - 4
    chunk = data[at : at + 12 + int.from_bytes(data[at : at + 4], "big")]
    end = data.index(b"IEND") - 4
    late = tmp_path / "late.png"
    late.write_bytes(data[:at] + data[at + len(chunk) : end] + chunk + data[end:])
    assert picture_size(late)[0] == read_picture(late).shape[1::-1] == (60, 90)


def test_transparent_parts_are_white_whatever_lies_below(tmp_path: Path) -> None:
    rgba = np.random.default_rng(1).integers(0, 256, (40, 50, 4)).astype(np.uint8)
    rgba[..., 3] = 0
    rgba[10:20, 5:25] = (20, 20, 220, 255)
    Image.fromarray(rgba).save(tmp_path / "logo.png")
    picture = read_picture(tmp_path / "logo.png")
    assert (picture[10:20, 5:25] == (20, 20, 220)).all() and (picture[:10] == 255).all()
    palette = Image.new("P", (9, 4), 1)
    palette.putpalette([0, 0, 0, 200, 30, 30])
    palette.paste(0, (0, 0, 4, 4))
    palette.save(tmp_path / "palette.png", transparency=0)
    assert read_picture(tmp_path / "palette.png")[0, :, 0].tolist() == [255] * 4 + [200] * 5


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_shown_in_eight(suffix: str, tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 60 * 40).reshape(40, 60).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / f"ramp.{suffix}")
    assert np.abs(read_picture(tmp_path / f"ramp.{suffix}")[..., 1].astype(float) - ramp / 257).max() <= 0.51


def test_numbers_that_are_no_brightness_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(7000, 8200, 64).reshape(8, 8).astype(np.uint16)).save(tmp_path / "thermal.png")
    with pytest.raises(UserError, match=r"thermal.png: its 16-bit numbers keep from 7000 to 8200 .*stretch them"):
        read_picture(tmp_path / "thermal.png")
    # Colours of 12 bits and fewer in 16: Pillow would show them black.
    for scale, is_right in ((257, True), (16, False)):
        rows = np.linspace(0, 255, 24).astype(np.uint16).reshape(2, 4, 3) * scale
        header, pixels = (
            struct.pack(">IIBBBBB", 4, 2, 16, 2, 0, 0, 0),
            b"".join(b"\0" + r.astype(">u2").tobytes() for r in rows),
        )
        chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
        packed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
        path = tmp_path / "colours.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
        assert not picture_header(path).is_plain
        if is_right:
            assert np.abs(read_picture(path) - rows / 257).max() <= 1
        else:
            with pytest.raises(UserError, match=r"its 16-bit numbers keep from 0 to \d+ of 65535, nearly one shade"):
                read_picture(path)
    (tmp_path / "grey.ppm").write_bytes(b"P5 2 1 65535\n" + struct.pack(">2H", 257, 60 * 257))
    assert read_picture(tmp_path / "grey.ppm")[0, :, 0].tolist() == [1, 60]
    for array, name in ((np.zeros((4, 5), np.float32), "float.tif"), (np.zeros((4, 5), np.int32), "int.tif")):
        Image.fromarray(array).save(tmp_path / name)
        with pytest.raises(UserError, match=f"{name}: holds (floating-point|32-bit) numbers.*save it with 8 bits"):
            read_picture(tmp_path / name)


@pytest.mark.parametrize(("brand", "name"), [("heic", "HEIC"), ("hevx", "HEIC"), ("msf1", "HEIF"), ("avis", "AVIF")])
def test_a_phone_format_is_named(brand: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\0\0\0\x18ftyp" + brand.encode() + bytes(40))
    said = rf"photo.jpg: is not a readable picture \({name}: save it as JPEG or PNG first\)"
    with pytest.raises(UserError, match=said):
        read_picture(tmp_path / "photo.jpg")


def test_notes_of_macos_are_no_frames(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        photo(tmp_path / name, 1)
        (tmp_path / f"._{name}").write_bytes(b"\0\x05\x16\x07Mac OS X")
    assert [file.name for file in frame_files(tmp_path)] == ["1.png", "2.png"]
