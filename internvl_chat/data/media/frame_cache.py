"""Resized frames on disk, so that a video that is shown again in the same way is not decoded again.

It pays where the same frames come back: evaluation, `middle` sampling, several runs on one dataset. Frames that `rand`
draws anew in every epoch hardly ever do.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from internvl_chat.contracts import UserError

logger = logging.getLogger(__name__)

# Part of every key: entries that another way of decoding or resizing wrote are not found.
_FORMAT = "tiles-2"
_SUFFIX, _TEMPORARY_SUFFIX = ".tiles", ".tmp"
# What a killed process left half-written is removed after this long.
_ABANDONED_S = 3600
_CHECKSUM_DTYPE, _SHAPE_DTYPE, _TILES_NDIM = np.dtype("<u4"), np.dtype("<u4"), 4


# What was said of a folder's faults in this process.
_told: set[tuple[Path, str]] = set()


@dataclass(frozen=True)
class FrameCache:
    """A folder of uint8 tiles under a size cap, shared by any number of processes of one machine.

    An entry is one call's tiles: checksum, shape and bytes, written under another name and then renamed, so that a
    reader finds all of it or nothing. The least recently used entries make room for a new one. Faults of the cache
    never stop a run: a broken entry is dropped, a full disk leaves things uncached.

    Args:
        folder: made where it is missing; a local disk, since processes agree by a file lock.
        max_bytes: cap on the entries' sizes; each process may be writing one entry more.
    Raises:
        UserError: the folder cannot be made or written to, or the cap is not positive.
    """

    folder: Path
    max_bytes: int

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise UserError(f"frame cache {self.folder}: its size cap is {self.max_bytes} bytes, expected 1 or more")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                pass
        except OSError as error:
            raise UserError(f"frame cache {self.folder}: cannot be written to ({error})") from error

    def tiles(
        self,
        video: Path,
        indices: npt.NDArray[np.integer],
        size_px: int,
        backend: str,
        produce: Callable[[], npt.NDArray[np.uint8]],
        variant: str = "",
    ) -> npt.NDArray[np.uint8]:
        """The tiles of chosen frames, from the cache or else from `produce`, whose result is kept.

        Args:
            video: the file; another size or modification time makes it another one.
            indices: [F] frame numbers.
            size_px: the tile's side.
            backend: which reader decodes.
            variant: what else the tiles depend on, such as boxes drawn into them.
        Returns:
            What `produce` returns, [F, S, S, 3] uint8.
        """
        path = self.folder / f"{_key(video, indices, size_px, backend, variant)}{_SUFFIX}"
        kept = _read_entry(path)
        if kept is not None:
            return kept
        tiles = produce()
        try:
            self._keep(path, tiles)
        except OSError as error:
            self._tell(f"nothing more can be kept ({error.strerror or error}); what it holds goes on being read")
        return tiles

    def _tell(self, fault: str) -> None:
        """Say it once in each process: a full disk is full for every frame that comes."""
        if (self.folder, fault) not in _told:
            _told.add((self.folder, fault))
            logger.warning("frame cache %s: %s", self.folder, fault)

    def _keep(self, path: Path, tiles: npt.NDArray[np.uint8]) -> None:
        temporary = path.with_suffix(f".{uuid.uuid4().hex}{_TEMPORARY_SUFFIX}")
        try:
            _write_entry(temporary, tiles)
            size = temporary.stat().st_size
            if size > self.max_bytes:
                self._tell(f"tiles of one video exceed the {self.max_bytes} bytes that it may hold: they are not kept")
            else:
                with self._locked():
                    self._make_room(size)
                    os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def _make_room(self, needed_bytes: int) -> None:
        entries, total = [], needed_bytes
        for entry in os.scandir(self.folder):
            try:
                facts = entry.stat()
            except FileNotFoundError:
                continue
            if entry.name.endswith(_SUFFIX):
                entries.append((facts.st_mtime_ns, facts.st_size, entry.path))
                total += facts.st_size
            elif entry.name.endswith(_TEMPORARY_SUFFIX) and time.time() - facts.st_mtime > _ABANDONED_S:
                Path(entry.path).unlink(missing_ok=True)
        for _, size, oldest in sorted(entries):
            if total <= self.max_bytes:
                break
            Path(oldest).unlink(missing_ok=True)
            total -= size

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _key(video: Path, indices: npt.NDArray[np.integer], size_px: int, backend: str, variant: str) -> str:
    facts = video.stat()
    identity = [_FORMAT, str(video.resolve()), facts.st_size, facts.st_mtime_ns]
    what = json.dumps([*identity, indices.tolist(), size_px, backend, variant])
    return hashlib.sha256(what.encode()).hexdigest()[:40]


def _write_entry(path: Path, tiles: npt.NDArray[np.uint8]) -> None:
    body = np.concatenate([np.array(tiles.shape, _SHAPE_DTYPE).view(np.uint8), tiles.reshape(-1)])
    with path.open("wb") as file:
        file.write(np.array([zlib.crc32(body.data)], _CHECKSUM_DTYPE).tobytes())
        file.write(body.data)


def _read_entry(path: Path) -> npt.NDArray[np.uint8] | None:
    """The tiles of an entry, which counts as its use; None if there is none, or none that is whole."""
    try:
        content = np.fromfile(path, np.uint8)
        checksum, body = np.split(content, [_CHECKSUM_DTYPE.itemsize])
        if checksum.tobytes() != np.array([zlib.crc32(body.data)], _CHECKSUM_DTYPE).tobytes():
            raise ValueError("its checksum does not fit")
        shape, tiles = np.split(body, [_SHAPE_DTYPE.itemsize * _TILES_NDIM])
        os.utime(path)
        return tiles.reshape(shape.view(_SHAPE_DTYPE).tolist())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("frame cache: %s is broken (%s) and dropped", path, error)
        path.unlink(missing_ok=True)
        return None
