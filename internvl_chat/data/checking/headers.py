"""What the headers of pictures, videos and box files say; each file is opened once and no video frame is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from internvl_chat.boxes import BOX_TEXT_NAME, parse_box_text, read_box_array
from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.media.pictures import picture_header, picture_size, read_picture
from internvl_chat.data.media.sources import (
    MediaHeader,
    MediaKind,
    frame_files,
    images_header,
    is_other_kind,
    missing_numbers,
    read_media_header,
)
from internvl_chat.files import lookalike

_TAIL_BYTES = 65536
# Of a long folder of frames so many headers are read, evenly spread.
_FRAMES_LOOKED_AT = 256
_END_MARKS = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND"}

EXPECTED_OF_DOUBTS = {
    "media-gaps": "numbers without a gap: boxes are counted by place, not by name",
    "media-moves": "one still picture: the first one alone is shown",
}


@dataclass(frozen=True)
class MediaFacts:
    """The header of a picture or video, or the code of what is wrong with the file; `doubt`: what is worth a look."""

    header: MediaHeader | None = None
    fault: str = ""
    doubt: str = ""
    found: str = ""


@dataclass(frozen=True)
class BoxFileFacts:
    """A box file beside a video: its rows [T, 4], or the code of what is wrong with it.

    `text_px` are the rows of the text that it is made from, x y w h in pixels, where that is there and can be read.
    """

    boxes: npt.NDArray | None = None
    text_px: npt.NDArray[np.float64] | None = None
    fault: str = ""
    found: str = ""


def sample_of(path: Path, kind: MediaKind) -> Sample:
    """A sample that shows this file and nothing else."""
    return Sample("", (), "", image_paths=(path,)) if kind == "image" else Sample("", (), "", video_path=path)


def read_media(path: Path, kind: MediaKind) -> MediaFacts:
    """Read the header of a picture, a video, a GIF or a folder of frames; never raises for what is in the file."""
    if not path.exists():
        return MediaFacts(fault="media-missing", found=f"there is no such file{lookalike(path)}")
    if is_other_kind(path, kind):
        found = "a video stands under 'image'" if kind == "image" else "a picture stands under 'video'"
        return MediaFacts(fault="media-kind", found=found)
    try:
        if kind == "image":
            return _picture_facts(path)
        if path.is_dir():
            return _folder_facts(path)
        if missing := _missing_at_end(path):
            return MediaFacts(fault="media-truncated", found=missing)
        return MediaFacts(read_media_header(sample_of(path, kind)))
    except UserError as error:
        return MediaFacts(fault="media-unreadable", found=without_path(path, error))
    except OSError as error:
        return MediaFacts(fault="media-unreadable", found=f"cannot be opened ({error})")


def without_path(path: Path, error: UserError) -> str:
    """What an error says, without the file it says it of."""
    return str(error).removeprefix(str(path)).removeprefix(":").strip()


def _picture_facts(path: Path) -> MediaFacts:
    """The header of a picture; it is decoded where its end or its numbers show that it must be looked at.

    Raises:
        UserError: it cannot be used, for what it holds.
    """
    header = picture_header(path)
    with path.open("rb") as file:
        ends_well = _ends_well(file, path.stat().st_size, path.suffix.lower())
    if not (ends_well and header.is_plain):
        try:
            read_picture(path)
        except UserError as error:
            if ends_well or not header.is_plain:
                raise
            return MediaFacts(fault="media-truncated", found=without_path(path, error))
    doubt, found = ("media-moves", "moves") if header.moves else ("", "")
    return MediaFacts(images_header([(header.size_px, header.display)]), doubt=doubt, found=found)


def _missing_at_end(path: Path) -> str:
    """What shows that a video was cut off though its header is whole; empty if nothing does."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        count = _missing_bytes(file, path.stat().st_size)
    return f"{count} bytes are missing at the end" if count else ""


def _ends_well(file: BinaryIO, size: int, suffix: str) -> bool:
    """Whether a picture has its end mark, or the size that it states; cheap, and where it fails decoding settles it.

    Source: WebP container specification, "WebP file header".
    """
    if suffix == ".webp":
        head = file.read(8)
        return len(head) == 8 and int.from_bytes(head[4:], "little") + 8 <= size
    # Cameras write notes of their own behind the end mark.
    file.seek(max(0, size - _TAIL_BYTES))
    mark = _END_MARKS.get(suffix, b"")
    return bool(mark) and mark in file.read()


def _folder_facts(folder: Path) -> MediaFacts:
    """The header of a folder of frames, if a look at others finds them like the first; and gaps in their numbers."""
    header = read_media_header(sample_of(folder, "video"))
    files = frame_files(folder)
    for file in files:
        if not file.stat().st_size:
            return MediaFacts(fault="media-truncated", found=f"frame {file.name} is empty")
    for place in np.unique(np.linspace(0, len(files) - 1, _FRAMES_LOOKED_AT).astype(int)):
        (width_px, height_px), _ = picture_size(files[place])
        if (width_px, height_px) != header.sizes_px[0]:
            first_px = "{} x {}".format(*header.sizes_px[0])
            found = f"frame {files[place].name} is {width_px} x {height_px}, the first one is {first_px}"
            return MediaFacts(fault="media-unreadable", found=found)
    missing = missing_numbers(files)
    found = f"{len(missing)} numbers are left out, {missing[0]} first" if missing else ""
    return MediaFacts(header, doubt="media-gaps" if missing else "", found=found)


def _missing_bytes(file: BinaryIO, size: int) -> int:
    """How far the boxes of an MP4 or MOV file reach beyond its end; 0 for other containers.

    Source: ISO/IEC 14496-12, 4.2: 32-bit size and type; size 1: 64 bits follow; size 0: up to the end.
    """
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        if at == 0 and head[4:8] != b"ftyp":
            return 0
        length = int.from_bytes(head[:4], "big")
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:], "big")
        if length < 8:
            return 0
        at += length
    return max(0, at - size)


def read_box_file(path: Path, video_path: Path) -> BoxFileFacts:
    """Read the `object_bboxes.npy` of a video without judging its values; never raises for what is in the file."""
    if not path.is_file():
        return BoxFileFacts(fault="box-file-missing", found="there is no such file")
    try:
        boxes = read_box_array(path)
    except (UserError, OSError) as error:
        return BoxFileFacts(fault="box-file-unreadable", found=str(error).removeprefix(f"{path}: "))
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "iuf":
        return BoxFileFacts(fault="box-shape", found=f"holds an array of {boxes.dtype} {list(boxes.shape)}")
    source = video_path.with_name(BOX_TEXT_NAME)
    try:
        text_px = parse_box_text(source) if source.is_file() else None
    except UserError as error:
        return BoxFileFacts(boxes, fault="box-file-stale", found=f"its source cannot be read ({error})")
    return BoxFileFacts(boxes, text_px)
