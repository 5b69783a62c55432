"""Clips as a person or a program hands them over: a video, a folder of frames, or frames in memory.

Shape letters: T frames of a clip, H and W their pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from internvl_chat.contracts import UserError
from internvl_chat.data.media.pictures import shown_pixels
from internvl_chat.data.media.sources import is_other_kind
from internvl_chat.files import lookalike

# A path; an array [T, H, W, 3] of uint8; or a list of such frames, or of Pillow's images.
GivenClip = Any
# A path; an array [H, W, 3] of uint8; or one of Pillow's images.
GivenPicture = Any
_EXPECTED = (
    "expected the path of a video or of a folder of frames, an array [T, H, W, 3] of uint8, or a list of pictures"
)


def clip_path(given: GivenClip, folder: Path) -> Path:
    """Where a clip lies. Frames in memory are written, as they are, into a folder of their own; the same ones once.

    Args:
        folder: where frames from memory go.
    Raises:
        UserError: there is nothing, or nothing that is a clip.
    """
    if isinstance(given, str | Path):
        path = Path(given).expanduser()
        if not path.exists():
            raise UserError(f"{path}: not found{lookalike(path)}")
        if is_other_kind(path, "video"):
            raise UserError(f"{path}: is a picture: {_EXPECTED}; ask about a picture with chat().ask(..., images=)")
        return path
    frames = _frames(given)
    digest = hashlib.sha256(repr(frames.shape).encode() + np.ascontiguousarray(frames).tobytes()).hexdigest()[:16]
    target = folder / f"clip-{digest}"
    if not target.is_dir():
        begun = folder / f"{digest}.begun"
        begun.mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate(frames):
            Image.fromarray(frame).save(begun / f"{number:06d}.bmp")
        begun.rename(target)
    return target


def picture_path(given: GivenPicture, folder: Path) -> Path:
    """Where a picture lies; one in memory is written into a folder.

    Args:
        given: a path, one of Pillow's images, or an array [H, W, 3] of uint8.
        folder: where a picture from memory goes.
    Raises:
        UserError: it is none of these.
    """
    if isinstance(given, str | Path):
        return Path(given).expanduser()
    pixels = _pixels(given, "the picture")
    if getattr(pixels, "ndim", 0) != 3:
        raise UserError(
            f"a picture given as {type(given).__name__}: expected a path, one of Pillow's images, or an array [H, W, 3]"
        )
    (path,) = clip_path([pixels], folder).iterdir()
    return path


def _frames(given: Any) -> npt.NDArray[np.uint8]:
    """[T, H, W, 3].

    Raises:
        UserError: it is no such frames; the message says what it is.
    """
    if isinstance(given, Sequence):
        _check_copies([frame for frame in given if isinstance(frame, Image.Image)])
        given = _stacked([_pixels(frame, f"frame {number} of the clip") for number, frame in enumerate(given)])
    elif isinstance(given, Image.Image) or np.ndim(given) == 3:
        raise UserError(f"a clip given as one picture: {_EXPECTED}; ask about a picture with chat().ask(..., images=)")
    try:
        frames = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"a clip given as {type(given).__name__}: {_EXPECTED}") from error
    if frames.dtype.kind not in "uif" or frames.ndim != 4 or not frames.size:
        shape = f" of shape {list(frames.shape)}" if frames.ndim else ""
        raise UserError(f"a clip given as {type(given).__name__}{shape}: {_EXPECTED}")
    if frames.shape[-1] != 3:
        turn = "permute" if hasattr(given, "permute") else "transpose"
        hint = f"; its channels come first: give frames.{turn}(0, 2, 3, 1)" if frames.shape[1] == 3 else ""
        raise UserError(f"a clip of shape {list(frames.shape)}: expected [T, H, W, 3]{hint}")
    if frames.dtype != np.uint8:
        cast = "byte()" if hasattr(given, "permute") else "astype('uint8')"
        hint = f"; 0 to 1 becomes that by (frames * 255).round().{cast}" if frames.dtype.kind == "f" else ""
        raise UserError(f"a clip of {frames.dtype}: expected uint8, 0 to 255{hint}")
    return frames


def _pixels(frame: Any, source: str) -> Any:
    """What a file with this picture would show; what is no picture stays as it is."""
    return shown_pixels(frame, source) if isinstance(frame, Image.Image) else frame


def _check_copies(pictures: Sequence[Image.Image]) -> None:
    """See to it that the pictures of an animation are not one object, which shows the last of them again and again.

    Raises:
        UserError: they are.
    """
    if len({id(picture) for picture in pictures}) < len(pictures) and any(
        getattr(picture, "n_frames", 1) > 1 for picture in pictures
    ):
        raise UserError(
            "a clip whose pictures are one object of several frames, as ImageSequence.Iterator gives it: expected a "
            "copy of each (frame.copy()), or the file's path"
        )


def _stacked(frames: Sequence[Any]) -> npt.NDArray:
    sizes = [np.shape(frame) for frame in frames]
    other = next((number for number, size in enumerate(sizes) if size != sizes[0]), None)
    if other is not None:
        raise UserError(
            f"frame {other} of a clip is {list(sizes[other])}, the first is {list(sizes[0])}: scale them alike"
        )
    return np.stack([np.asarray(frame) for frame in frames]) if sizes else np.zeros(0)
