"""Where a session's clip, its frames and what is pointed at come together, between the files and the page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from internvl_chat.contracts import UserError
from internvl_chat.trackers.frames import Footage
from internvl_chat.web.pointing import PointedClip
from internvl_chat.web.record_lines import read_record, with_record
from internvl_chat.web.sessions import SessionFolder, Sessions
from internvl_chat.web.shelf import Shelf, file_name_of

_FOOTAGES_KEPT = 32


class Workbench:
    """Sessions and the clips that they can open."""

    def __init__(self, sessions: Sessions, shelf: Shelf) -> None:
        self.sessions, self.shelf = sessions, shelf

    @contextmanager
    def at_work(self, session: object) -> Iterator[Work]:
        """What a session has open, for one at a time.

        Raises:
            UserError: it is no session, or has nothing open.
        """
        with self.sessions.opened(session) as folder:
            clip = folder.open_clip()
            if clip is None:
                raise UserError("choose a clip first")
            yield Work(folder, self.footage_of(folder, clip), clip)

    def footage_of(self, folder: SessionFolder, clip: str) -> Footage:
        """The frames of a clip that a session can open.

        Raises:
            UserError: it is gone, or no readable video.
        """
        path = self.shelf.path_of(clip, folder.uploads)
        return _footage(path, path.stat().st_mtime_ns)

    def open_clip(self, session: object, clip: str) -> PointedClip:
        """Open a clip where it was left."""
        with self.sessions.opened(session) as folder:
            pointed = Work(folder, self.footage_of(folder, clip), clip).pointed
            folder.save(pointed)
            return pointed

    def upload(self, session: str, given: Path) -> PointedClip:
        """Keep a video with a session, and open it.

        Raises:
            UserError: it is no readable video, or there is no room for it.
        """
        self.sessions.make_room(session, given.stat().st_size)
        with self.sessions.opened(session) as folder:
            clip = self.shelf.keep(given, folder.uploads)
            try:
                return self.open_clip(session, clip)
            except UserError:
                self.shelf.path_of(clip, folder.uploads).unlink()
                raise

    def open_record(self, session: object, given: Path, line: int) -> PointedClip:
        """Open the clip of a record, with its tracks beside the objects there and its answer as a caption.

        The clip is one of the folder's, by its path there, or an uploaded one, by its file's name.

        Raises:
            UserError: it is no such record, its clip is not here, or its tracks do not fit it.
        """
        with self.sessions.opened(session) as folder:
            root = self.shelf.folder or folder.uploads
            sample = read_record(given, line, root)
            assert sample.video_path is not None
            wanted = sample.video_path.relative_to(root).as_posix()
            called = {file_name_of(name): name for name in self.shelf.names_for(folder.uploads)}
            # A path says more than a name: another folder's video may have the same.
            clip = called.get(wanted) or called.get(sample.video_path.name)
            if clip is None:
                raise UserError(f"{sample.source}: its video {wanted} is not here: upload the clip first")
            footage = self.footage_of(folder, clip)
            pointed = with_record(folder.load(_blank(clip, footage)), sample, footage.header)
            folder.save(pointed)
            return pointed


class Work:
    """One session's open clip: its frames, and what is pointed at in it."""

    def __init__(self, folder: SessionFolder, footage: Footage, clip: str) -> None:
        self.folder, self.footage = folder, footage
        self.pointed = folder.load(_blank(clip, footage))

    def keep(self, pointed: PointedClip) -> None:
        """What is pointed at from now on; it is on disk when this returns."""
        self.folder.save(pointed, self.pointed)
        self.pointed = pointed

    def picture(self) -> npt.NDArray[np.uint8]:
        """The shown frame [H, W, 3]."""
        return self.footage.at(np.array([self.pointed.frame]))[0]


def _blank(clip: str, footage: Footage) -> PointedClip:
    return PointedClip(clip, footage.size_px, footage.num_frames)


@lru_cache(maxsize=_FOOTAGES_KEPT)
def _footage(path: Path, _written_ns: int) -> Footage:
    """Reading where a video's frames lie takes time; a file that was written since is another one."""
    return Footage(path)
