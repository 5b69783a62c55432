"""The clips that can be opened: those of a folder, and those that a session has uploaded."""

from __future__ import annotations

import filecmp
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from internvl_chat.constants import VIDEO_SUFFIXES
from internvl_chat.contracts import UserError
from internvl_chat.data.media.sources import is_video_file

# A list that is longer is no use to choose from.
MAX_CLIPS = 2000
_EXPECTED = ", ".join(sorted(VIDEO_SUFFIXES))
_UPLOADED = "upload: "
_NOT_IN_NAMES = re.compile(r"[^\w.() -]")
_LONGEST_NAME = 80


class Shelf:
    """Clips by name.

    Args:
        folder: with videos at any depth; None has uploads alone.
    Raises:
        UserError: it is no folder, or holds no video.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        if folder is None:
            self.names: tuple[str, ...] = ()
            return
        if not folder.is_dir():
            raise UserError(f"--clips {folder}: is no folder")
        found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if is_video_file(path))
        # A browser cannot be told of a name that is no text.
        self.names = tuple(sorted(name for name in found if _is_text(name))[:MAX_CLIPS])
        if not self.names:
            raise UserError(f"--clips {folder}: holds no video, expected {_EXPECTED}")

    def names_for(self, uploads: Path) -> list[str]:
        """The names of all clips that a session can open, its own first."""
        return [*sorted(_uploaded(uploads)), *self.names]

    def path_of(self, name: str, uploads: Path) -> Path:
        """Where a clip of this name lies.

        Raises:
            UserError: there is none, or no more.
        """
        if name in self.names and self.folder is not None:
            return self.folder / name
        if name in _uploaded(uploads):
            return uploads / name.removeprefix(_UPLOADED)
        raise UserError(f"the clip {name!r} is not there any more: choose another one")

    def keep(self, given: Path, uploads: Path) -> str:
        """Keep an uploaded video with a session; the clip's name, which another clip does not have.

        Raises:
            UserError: its name is none of a video.
        """
        if given.suffix.lower() not in VIDEO_SUFFIXES:
            raise UserError(f"{given.name}: is no video, expected {_EXPECTED}")
        stem = _NOT_IN_NAMES.sub("_", given.stem)[:_LONGEST_NAME].strip(". ") or "clip"
        uploads.mkdir(parents=True, exist_ok=True)
        name, number = f"{stem}{given.suffix.lower()}", 1
        # What is pointed at is kept by a clip's name: another video is not to be found under it.
        while name in self.names or _is_another(given, uploads / name):
            number += 1
            name = f"{stem} ({number}){given.suffix.lower()}"
        shutil.copyfile(given, uploads / name)
        return f"{_UPLOADED}{name}"


def file_name_of(clip: str) -> str:
    """What a record calls the video of a clip: its path in the folder of clips, or an uploaded file's name."""
    return clip.removeprefix(_UPLOADED)


def _is_text(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _is_another(given: Path, kept: Path) -> bool:
    return kept.exists() and not filecmp.cmp(given, kept, shallow=False)


def _uploaded(uploads: Path) -> Iterator[str]:
    if uploads.is_dir():
        yield from (f"{_UPLOADED}{path.name}" for path in uploads.iterdir() if is_video_file(path))
