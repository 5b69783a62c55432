"""A file of finished work, one JSON line a piece, that a killed run goes on from."""

from __future__ import annotations

import json
import os
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from internvl_chat.contracts import UserError
from internvl_chat.processes import forget, lock


class KeptFile(FileIO):
    """A file that is this process's until it is closed."""

    def close(self) -> None:
        if not self.closed:
            forget(self.fileno())
        super().close()


def open_to_append(path: Path) -> FileIO:
    """Open a file of lines for one writer; a line that a killed writer tore is dropped, its folder is made.

    Raises:
        UserError: it cannot be written, or another process is writing to it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: what a full disk refused must not be tried again when the file is closed.
        file = KeptFile(path, "ab+")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        lock(file.fileno())
    except BlockingIOError as error:
        file.close()
        raise UserError(f"{path}: another run is writing to it; wait for it, or end it") from error
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)
    return file


def append_lines(file: FileIO, content: str) -> None:
    """Write whole lines and see them on the disk before returning.

    Raises:
        UserError: the disk is full, or fails.
    """
    left = content.encode()
    try:
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())
    except OSError as error:
        raise UserError(
            f"{file.name}: cannot be written ({error.strerror}); what was finished before is kept, and the same "
            "command goes on from there"
        ) from error


class Journal:
    """Finished pieces by key, on the disk as soon as they are noted.

    Args:
        path: made with its folder if it is not there.
    Raises:
        UserError: it cannot be written, another process is writing to it, or a complete line is no entry.
    """

    def __init__(self, path: Path) -> None:
        self._file = open_to_append(path)
        self._file.seek(0)
        self.done: dict[str, Any] = {}
        for number, line in enumerate(self._file.read().splitlines(), start=1):
            try:
                entry = json.loads(line)
                self.done[entry["key"]] = entry["result"]
            except (ValueError, KeyError, TypeError) as error:
                self._file.close()
                raise UserError(
                    f"{path}:{number}: is no entry of finished work ({error}); remove the line, or the file to start "
                    "anew"
                ) from error

    def note(self, key: str, result: Any) -> None:
        """Keep one finished piece."""
        append_lines(self._file, json.dumps({"key": key, "result": result}) + "\n")
        self.done[key] = result

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
