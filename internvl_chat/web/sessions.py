"""Sessions as files: what each has pointed at, clip by clip, and its own videos, under a folder of bounded size.

ROOT/<session>/open.json        the clip that is open, and where in it the user is
               pointed/*.npz    objects and tracks, a file a clip
               uploads/         videos of the user's own
               files/           what was written to be downloaded
               shown/           pictures of the page
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from internvl_chat.contracts import UserError
from internvl_chat.files import json_text, read_json, replacing, write_json
from internvl_chat.web.pointing import PointedClip, PointedObject

_ID = re.compile(r"[0-9a-f]{32}")
# A page may still ask for the pictures that it showed last.
_PICTURES_KEPT = 8
# Where in a clip a user is.
_VIEW = ("frame", "chosen", "next_name", "by_clicks")


def mark_of(clip: str) -> str:
    """Of the clip of this name alone, whatever characters it has: for names of files."""
    return hashlib.sha256(clip.encode()).hexdigest()[:16]


class SessionFolder:
    """One session's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uploads, self.files = folder / "uploads", folder / "files"

    @property
    def _open(self) -> Path:
        return self.folder / "open.json"

    def _pointed(self, clip: str) -> Path:
        return self.folder / "pointed" / f"{mark_of(clip)}.npz"

    def open_clip(self) -> str | None:
        """The name of the clip that is open."""
        return str(read_json(self._open)["clip"]) if self._open.is_file() else None

    def load(self, blank: PointedClip) -> PointedClip:
        """What was pointed at in the clip of `blank`, which says how it is before anything was.

        Tracks of another number of frames are another video's of the same name, and are left.
        """
        path = self._pointed(blank.clip)
        pointed = blank
        if path.is_file():
            with np.load(path, allow_pickle=False) as file:
                highest = int(file["highest"]) if "highest" in file else 0
                pointed = replace(blank, objects=tuple(_objects_of(file)), highest=highest)
        if any(one.num_frames != blank.num_frames for one in pointed.objects):
            pointed = blank
        seen = read_json(self._open) if self._open.is_file() else {}
        if seen.get("clip") != blank.clip:
            return pointed
        pointed = pointed.at(seen["frame"])
        return replace(pointed, **{name: seen[name] for name in _VIEW if name != "frame"})

    def save(self, pointed: PointedClip, before: PointedClip | None = None) -> None:
        """Write down what is open; objects that are those of `before` are on disk."""
        if before is None or pointed.objects is not before.objects:
            with replacing(self._pointed(pointed.clip)) as temporary, temporary.open("wb") as file:
                np.savez(file, **_arrays_of(pointed))
        write_json(self._open, {name: getattr(pointed, name) for name in ("clip", *_VIEW)})

    def keep_picture(self, name: str, picture: npt.NDArray[np.uint8]) -> Path:
        """Where a picture [H, W, 3] lies that is shown under this name; of those before it a few are left."""
        folder = self.folder / "shown"
        folder.mkdir(exist_ok=True)
        path = folder / name
        with replacing(path) as temporary:
            Image.fromarray(picture).save(temporary, "PNG", compress_level=1)
        for old in sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime_ns)[:-_PICTURES_KEPT]:
            old.unlink()
        return path

    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


class Sessions:
    """All sessions under a folder.

    Args:
        root: is made where it is not.
        limit_bytes: of all sessions together; the one that was longest not used goes first.
    """

    def __init__(self, root: Path, limit_bytes: int) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root, self.limit_bytes = root, limit_bytes
        self._locks: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)

    def begin(self, session: object) -> str:
        """The session that a browser names, or a new one where it names none; an id is a secret, not a counter."""
        if isinstance(session, str) and _ID.fullmatch(session):
            return session
        return secrets.token_hex(16)

    @contextmanager
    def opened(self, session: object) -> Iterator[SessionFolder]:
        """A session's files, for one at a time.

        Raises:
            UserError: it is none that was begun here.
        """
        if not (isinstance(session, str) and _ID.fullmatch(session)):
            raise UserError("this page has no session: reload it")
        with self._locks[session]:
            yield SessionFolder(self.root / session)

    def make_room(self, keep: str, wanted_bytes: int) -> None:
        """Delete sessions, the longest not used first, until so many bytes fit.

        Args:
            keep: the session that asks; it stays.
        Raises:
            UserError: they do not fit beside what this session has itself.
        """
        folders = [SessionFolder(path) for path in self.root.iterdir() if _ID.fullmatch(path.name)]
        sizes = {folder.folder.name: folder.size_bytes() for folder in folders}
        if sizes.get(keep, 0) + wanted_bytes > self.limit_bytes:
            raise UserError(
                f"{wanted_bytes / 1e6:.0f} MB do not fit: sessions have {self.limit_bytes / 1e6:.0f} MB, and this one "
                f"fills {sizes.get(keep, 0) / 1e6:.0f}: start over, or start the page with a larger --max_gb"
            )
        for name in sorted(sizes.keys() - {keep}, key=lambda name: _used_s(self.root / name)):
            if sum(sizes.values()) + wanted_bytes <= self.limit_bytes:
                return
            # One that is in use now is none to delete, and waiting for it could be for ever.
            if self._locks[name].acquire(blocking=False):
                try:
                    shutil.rmtree(self.root / name)
                finally:
                    self._locks[name].release()
                del sizes[name]


def _used_s(folder: Path) -> float:
    last = folder / "open.json"
    return (last if last.is_file() else folder).stat().st_mtime


def _arrays_of(pointed: PointedClip) -> dict[str, Any]:
    """Objects as arrays without Python objects: one file, so that tracks and what they follow from never part."""
    said = [
        {name: getattr(one, name) for name in ("number", "name", "caption", "candidates", "is_caption_current")}
        | {"given": sorted(one.given.items()), "changed": sorted(one.changed)}
        for one in pointed.objects
    ]
    shape = (len(pointed.objects), pointed.num_frames)
    return {
        "objects": np.array(json_text(said)),
        "highest": np.array(pointed.next_number - 1),
        "boxes_px": np.array([one.boxes_px for one in pointed.objects]).reshape(*shape, 4),
        "confidence": np.array([one.confidence for one in pointed.objects]).reshape(shape),
    }


def _objects_of(arrays: Any) -> Iterator[PointedObject]:
    said = json.loads(str(arrays["objects"]))
    for fields, boxes_px, confidence in zip(said, arrays["boxes_px"], arrays["confidence"], strict=True):
        fields["given"] = {at: None if box is None else tuple(box) for at, box in fields["given"]}
        fields["candidates"], fields["changed"] = tuple(fields["candidates"]), frozenset(fields["changed"])
        yield PointedObject(boxes_px=boxes_px, confidence=confidence, **fields)
