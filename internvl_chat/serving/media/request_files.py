"""The pictures and videos of a request, sent along or named, as files that may be read."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from internvl_chat.serving.media.fetching import Fetcher
from internvl_chat.serving.refusals import Refusal

_PIECE_BYTES = 1 << 20
ATTACHMENT = "attachment:"


class FileStore:
    """Files under the hash of their content, kept as long as a request needs them: a clip sent twice lies there once.

    Args:
        folder: for them alone.
        most_bytes: of one.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        self._users: Counter[Path] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def kept(self, pieces: Iterable[bytes]) -> Iterator[Path]:
        """Where a file lies, until the end of the context.

        Raises:
            Refusal: it is too large.
        """
        digest, size = hashlib.sha256(), 0
        with ExitStack() as undo, tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
            undo.callback(os.unlink, file.name)
            for piece in pieces:
                size += len(piece)
                if size > self.most_bytes:
                    raise too_large(self.most_bytes)
                digest.update(piece)
                file.write(piece)
            undo.pop_all()
        path = self.folder / digest.hexdigest()
        with self._lock:
            self._users[path] += 1
            os.replace(file.name, path)
        try:
            yield path
        finally:
            with self._lock:
                self._users[path] -= 1
                if not self._users[path]:
                    del self._users[path]
                    path.unlink()


def too_large(most_bytes: int) -> Refusal:
    return Refusal(
        f"larger than {most_bytes / 1e6:g} MB, the most that this server takes", status=413, code="request_too_large"
    )


class FileSources:
    """Where the files of requests may come from.

    Args:
        root: the folder that named files must lie in, links followed; None is nowhere.
    """

    def __init__(self, store: FileStore, root: Path | None, fetcher: Fetcher) -> None:
        self.store, self.fetcher = store, fetcher
        self.root = None if root is None else Path(os.path.realpath(root))

    def mark(self, path: Path) -> str:
        """A name for an opened file that is another one's only if its content is the same."""
        return path.name if path.parent == self.store.folder else str(path)

    def open(self, url: str, uploads: Mapping[str, BinaryIO], until: ExitStack) -> Path:
        """The file that a URL stands for; `until` is the context that it is needed in.

        Args:
            uploads: files that came with the request, by their names in it.
        Raises:
            Refusal: it may not be read, or is not there.
        """
        if url.startswith("data:"):
            return until.enter_context(self.store.kept([_decoded(url)]))
        if url.startswith(ATTACHMENT):
            name = url.removeprefix(ATTACHMENT)
            if name not in uploads:
                known = ", ".join(sorted(uploads)) or "none"
                raise Refusal(f"{url}: no file of this name came with the request; it has {known}")
            file = uploads[name]
            file.seek(0)
            return until.enter_context(self.store.kept(iter(lambda: file.read(_PIECE_BYTES), b"")))
        scheme, has_scheme, place = url.partition("://")
        if not has_scheme:
            return self._under_root(url, url)
        if scheme in ("http", "https"):
            return until.enter_context(self.store.kept(self.fetcher.fetch(url)))
        if scheme == "file":
            return self._under_root(unquote(place.removeprefix("localhost")), url)
        raise Refusal(
            f"{url[:200]}: expected a data: URL, attachment:NAME with an upload, http(s)://, or a path under the "
            "server's media folder"
        )

    def _under_root(self, name: str, url: str) -> Path:
        """Whether a file is not there, or not to be had, is told alike."""
        if self.root is None:
            raise Refusal(f"{url[:200]}: this server opens no files of its own (it was started without --media_root)")
        refused = Refusal(f"{url[:200]}: is no file under the server's media folder", status=404, code="file_not_found")
        try:
            path = Path(os.path.realpath(self.root / name))
            is_there = path.is_relative_to(self.root) and (path.is_file() or path.is_dir())
        except (OSError, ValueError) as error:
            # Longer than a file system takes, or with a zero byte in it.
            raise refused from error
        if not is_there:
            raise refused
        return path


def _decoded(url: str) -> bytes:
    head, comma, content = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise Refusal(f"{head[:80]}: expected data:TYPE;base64,CONTENT")
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(f"{head[:80]}: its content is not base64 ({error})") from error
