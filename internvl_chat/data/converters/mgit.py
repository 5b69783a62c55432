"""MGIT: long sequences of VideoCube, each with the track of one target and the story that it goes through."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import ParseError

from internvl_chat.contracts import UserError
from internvl_chat.data.converters.forms.conversion import Conversion
from internvl_chat.data.converters.forms.described import (
    Box,
    Described,
    Faults,
    ObjectBoxes,
    number_of,
    records_of,
)
from internvl_chat.data.converters.forms.tracking import label_flags
from internvl_chat.data.media.sources import frame_files
from internvl_chat.files import read_text

if TYPE_CHECKING:
    from types import ModuleType

BOXES, ABSENCE, TEXTS = "attribute/groundtruth", "attribute/absent", "mgit_nlp"
# Which cell of a sequence's sheet is its text: this column, from 1, of the last row, as the toolkit reads it.
TEXT_COLUMN = 15
# A sheet has some kilobytes; one that claims more than this is none.
MAX_SHEET_BYTES = 2**26
# What broken archives and broken XML in sound ones make openpyxl raise.
_BROKEN_ARCHIVE = (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError)
_UNREADABLE = (*_BROKEN_ARCHIVE, ParseError, LookupError, ValueError, TypeError, AttributeError)


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """A record a sequence of a split's folder, such as `MGIT/data/train`: frames in `<seq>/frame_<seq>`.

    Beside `data` lie `attribute/groundtruth/<seq>.txt` (x,y,w,h in pixels a frame), `attribute/absent/<seq>.txt` (1
    where the target is not to be seen) and the toolkit's `mgit_nlp/<seq>.xlsx`, whose story is the answer. The rows of
    single actions and activities are not read: the toolkit leaves them out too, and says of no column which frames it
    means.

    Raises:
        UserError: all that is wrong with the sequences, by file and line, or openpyxl is not installed.
    """
    folders = sorted(path for path in source.glob("*") if (path / f"frame_{path.name}").is_dir())
    if not folders:
        raise UserError(f"{source}: holds no <seq>/frame_<seq>: expected a split's folder, such as MGIT/data/train")
    faults, found, openpyxl = Faults(options.faults), list[Described](), _openpyxl()
    base = source.absolute().parent.parent
    for folder in folders:
        frames = folder / f"frame_{folder.name}"
        with faults.gathered():
            boxes_path = base / BOXES / f"{folder.name}.txt"
            num_frames = len(frame_files(frames))
            boxes = _boxes(boxes_path, num_frames, frames)
            absent = label_flags(base / ABSENCE / f"{folder.name}.txt")
            if absent and len(absent) != num_frames:
                raise UserError(
                    f"{base / ABSENCE / folder.name}.txt: has {len(absent)} labels for the {num_frames} frames of "
                    f"{frames}: expected one a frame"
                )
            seen = {n: box for n, box in boxes.items() if not (absent and absent[n])}
            text = _story(openpyxl, base / TEXTS / f"{folder.name}.xlsx")
            thing = ObjectBoxes("object", seen, "xywh")
            found.append(Described(folder.name, str(boxes_path), frames, (thing,), (text,), num_frames=num_frames))
    yield from records_of(found, options.root, options.question, faults)


def _boxes(path: Path, num_frames: int, frames: Path) -> dict[int, Box]:
    """x y w h by frame number from 0; a line without area, or of NaN, is a frame without the target."""
    lines = read_text(path).rstrip().splitlines()
    if len(lines) != num_frames:
        raise UserError(
            f"{path}: has {len(lines)} lines for the {num_frames} frames of {frames}: expected one a frame; of the "
            "test split only the boxes of restart frames are published, which are no track"
        )
    faults, boxes = Faults(), dict[int, Box]()
    for number, line in enumerate(lines):
        where = f"{path}:{number + 1}"
        with faults.gathered():
            words = re.split(r"[,\s]+", line.strip())
            if len(words) != 4:
                raise UserError(f"{where}: holds {line[:40]!r}: expected x,y,w,h")
            if [word.lower() for word in words] != ["nan"] * 4:
                x, y, w, h = (number_of(word, where) for word in words)
                boxes |= {number: (x, y, w, h)} if w > 0 and h > 0 else {}
    faults.tell()
    return boxes


def _openpyxl() -> ModuleType:
    try:
        import openpyxl
    except ImportError as error:
        raise UserError("MGIT's texts are spreadsheets: pip install -r requirements/mgit.txt") from error
    return openpyxl


def _story(openpyxl: ModuleType, path: Path) -> str:
    """The text of the whole sequence.

    Raises:
        UserError: the sheet is not there, cannot be read, or has no such text.
    """
    if not path.is_file():
        raise UserError(f"{path}: is not there: expected the folder {TEXTS} of videocube-toolkit's mgit/datasets here")
    try:
        with zipfile.ZipFile(path) as parts:
            num_bytes = sum(part.file_size for part in parts.infolist())
        if num_bytes > MAX_SHEET_BYTES:
            raise UserError(f"{path}: would unpack to {num_bytes} bytes, expected {MAX_SHEET_BYTES} at most")
        sheet = openpyxl.load_workbook(path, data_only=True).worksheets[0]
        rows = [row for row in sheet.iter_rows(min_row=2, values_only=True) if any(cell is not None for cell in row)]
    except UserError:
        raise
    except _UNREADABLE as error:
        raise UserError(f"{path}: cannot be read as a spreadsheet ({error!r:.200})") from error
    cell = rows[-1][TEXT_COLUMN - 1] if rows and len(rows[-1]) >= TEXT_COLUMN else None
    text = " ".join(cell.split()) if isinstance(cell, str) else ""
    if not text:
        raise UserError(
            f"{path}: column {TEXT_COLUMN} of the last of {len(rows)} rows holds {cell!r:.40}: expected a text"
        )
    return text
