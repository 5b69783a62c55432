"""Reading pictures: their size as it is shown, and their pixels as 8-bit RGB, whatever they are stored as."""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from internvl_chat.contracts import UserError
from internvl_chat.data.media.display import Display, display_of_exif
from internvl_chat.files import lookalike

# Others that Pillow knows start programs (EPS) or are no pictures.
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
PICTURE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"))
# Pictures too, which are not read.
UNREAD_SUFFIXES = frozenset((".heic", ".heif", ".hif", ".avif"))

# Pillow's own bound for a picture that is no attack on memory.
MAX_PICTURE_PIXELS = 89_478_485

# Formats in which several pictures are a film; TIFF's are pages, and a phone's are views of the same.
_ANIMATED_FORMATS = frozenset({"WEBP", "PNG", "GIF"})

# What Pillow's decoders raise, over its formats, at a file that is cut off or is none.
PICTURE_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    Image.DecompressionBombError,
)

# What 16 bits a channel are called, by byte order and by what reads them.
_DEEP_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
_GREY_MODES = _DEEP_MODES | {"I"}
# Numbers without a range that stands for black and white.
_UNBOUNDED_MODES = frozenset({"I", "F"})
# A picture of 16 bits that uses fewer of the 256 levels is of nearly one shade: its numbers are no brightness.
_FEWEST_LEVELS = 32
_GROUND = (255, 255, 255, 255)
# How files of phones' newer formats begin, from their fifth byte on.
_HEIC, _HEIF, _AVIF = ("heic", "heix", "heim", "heis", "hevc", "hevx"), ("mif1", "msf1"), ("avif", "avis")
_PHONE_FORMATS = {
    f"ftyp{brand}".encode(): name
    for name, brands in (("HEIC", _HEIC), ("HEIF", _HEIF), ("AVIF", _AVIF))
    for brand in brands
}


def bounded(path: Path, size_px: tuple[int, int]) -> tuple[int, int]:
    """The size, if it is that of a picture to learn from.

    Raises:
        UserError: it is larger.
    """
    width_px, height_px = size_px
    if width_px * height_px > MAX_PICTURE_PIXELS:
        raise UserError(
            f"{path}: is {width_px} x {height_px}, expected at most {MAX_PICTURE_PIXELS} pixels: scale it down"
        )
    return size_px


@dataclass(frozen=True)
class PictureHeader:
    """What a picture file says before a pixel is decoded.

    Args:
        size_px: width and height as they are shown.
        display: how the stored picture is turned for it.
        moves: it is one of several that are shown one after another; only the first one is read.
        is_plain: every pixel is a colour; the numbers of others must be looked at.
    """

    size_px: tuple[int, int]
    display: Display
    moves: bool
    is_plain: bool


def picture_header(path: Path) -> PictureHeader:
    """What a picture file says of itself; it is opened once.

    Raises:
        UserError: it cannot be read.
    """
    with _open_picture(path) as image:
        display = _display_of(path, image)
        # Pillow states a TIFF's size as it is shown, and others' as they are stored.
        size_px = image.size if image.format == "TIFF" else display.shown_size(*image.size)
        is_plain = not _is_deep(image) and image.mode not in _UNBOUNDED_MODES
        return PictureHeader(size_px, display, _moves(image), is_plain)


def picture_size(path: Path) -> tuple[tuple[int, int], Display]:
    """Width and height as they are shown, and how the stored picture is turned for it; no pixel is decoded.

    Raises:
        UserError: it cannot be read.
    """
    header = picture_header(path)
    return header.size_px, header.display


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """The picture as it is shown, [H, W, 3] RGB: turned as EXIF says, transparency over white, 16 bits scaled to 8.

    Raises:
        UserError: it cannot be decoded, or holds numbers that are no brightness.
    """
    with _open_picture(path) as image:
        return shown_pixels(image, str(path))


def shown_pixels(image: Image.Image, source: str) -> npt.NDArray[np.uint8]:
    """The same of a picture that is opened, or made, already.

    Args:
        source: what it is called in messages.
    Raises:
        UserError: as `read_picture`.
    """
    try:
        is_deep = _is_deep(image)
        image = ImageOps.exif_transpose(image)
        if is_deep and image.mode in _GREY_MODES:
            return _from_16_bits(source, np.array(image))
        if image.mode in _UNBOUNDED_MODES:
            raise UserError(
                f"{source}: holds {'floating-point' if image.mode == 'F' else '32-bit'} numbers, of which nobody "
                "says what is black and what is white: save it with 8 bits"
            )
        if is_deep:
            # Pillow keeps the upper eight bits of colours.
            colours = [bounds for bounds in image.getextrema() if isinstance(bounds, tuple)][:3]
            _refuse_one_shade(source, *(257 * v for v in (min(c[0] for c in colours), max(c[1] for c in colours))))
        return np.array(over_ground(image.convert("RGBA") if image.has_transparency_data else image))
    except UserError:
        raise
    except PICTURE_FAULTS as error:
        raise UserError(f"{source}: cannot be decoded ({error})") from error


def over_ground(image: Image.Image) -> Image.Image:
    """The picture as RGB, its transparent parts over white."""
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, _GROUND), image)
    return image.convert("RGB")


def _moves(image: Image.Image) -> bool:
    try:
        return image.format in _ANIMATED_FORMATS and getattr(image, "is_animated", False)
    except PICTURE_FAULTS:
        return False  # Behind the first picture, which is read, something is broken.


def _is_deep(image: Image.Image) -> bool:
    """Whether an opened picture, of which nothing is decoded yet, is stored with 16 bits a channel."""
    return image.mode in _DEEP_MODES or any(";16" in str(tile) for tile in getattr(image, "tile", ()))


def _from_16_bits(source: str, grey_HW: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    _refuse_one_shade(source, int(grey_HW.min()), int(grey_HW.max()))
    return np.repeat(np.rint(grey_HW / 257).astype(np.uint8)[..., None], 3, axis=2)


def _refuse_one_shade(source: str, darkest: int, lightest: int) -> None:
    if round(lightest / 257) - round(darkest / 257) < _FEWEST_LEVELS - 1:
        raise UserError(
            f"{source}: its 16-bit numbers keep from {darkest} to {lightest} of 65535, nearly one shade: "
            "stretch them to 8 bits, alike in all of the data"
        )


def _display_of(path: Path, image: Image.Image) -> Display:
    try:
        # Pillow decodes a whole PNG to look for what hardly ever stands behind its pixels.
        if image.format == "PNG" and not _has_late_exif(path):
            return display_of_exif(Image.Image.getexif(image))
        return display_of_exif(image.getexif())
    except PICTURE_FAULTS as error:
        raise UserError(f"{path}: its EXIF data cannot be read ({error}): save it again without") from error


def _has_late_exif(path: Path) -> bool:
    """Whether a PNG's EXIF data stands behind its pixels. Source: PNG specification, 5.3 and 11.3.4.5."""
    at, has_pixels, size = 8, False, path.stat().st_size
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            head = file.read(8)
            if head[4:] == b"eXIf":
                return has_pixels
            has_pixels |= head[4:] == b"IDAT"
            at += 12 + int.from_bytes(head[:4], "big")
    return False


def _open_picture(path: Path) -> Image.Image:
    if not path.is_file():
        what = "is a folder, expected a picture" if path.is_dir() else f"picture not found{lookalike(path)}"
        raise UserError(f"{path}: {what}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=PICTURE_FORMATS)
    except PICTURE_FAULTS as error:
        raise UserError(f"{path}: is not a readable picture ({_phone_format(path) or error})") from error
    try:
        bounded(path, image.size)
    except UserError:
        image.close()
        raise
    return image


def _phone_format(path: Path) -> str:
    with path.open("rb") as file:
        name = _PHONE_FORMATS.get(file.read(12)[4:])
    return f"{name}: save it as JPEG or PNG first" if name else ""
