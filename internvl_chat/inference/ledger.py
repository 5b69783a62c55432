"""Finished captions on disk: a folder of append-only JSONL files, one a rank, that a killed run goes on from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from internvl_chat.contracts import UserError
from internvl_chat.journal import append_lines, open_to_append


def _lines(content: bytes) -> list[bytes]:
    """The complete lines; what a killed writer left behind the last line break is none."""
    return content[: content.rfind(b"\n") + 1].splitlines()


def read_progress(folder: Path) -> dict[str, list[str]]:
    """Candidates by key, from the files of all ranks, also of an earlier run with another number of them.

    Raises:
        UserError: a complete line is no record.
    """
    done: dict[str, list[str]] = {}
    for path in sorted(folder.glob("rank-*.jsonl")):
        for number, line in enumerate(_lines(path.read_bytes()), start=1):
            try:
                record = json.loads(line)
                done[record["key"]] = [str(text) for text in record["candidates"]]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{path}:{number}: is no record of finished captions ({error}); remove the line, or the folder "
                    "to start anew"
                ) from error
    return done


class ProgressFile:
    """One rank's file, open for appending; a line that a killed writer tore is dropped.

    Args:
        folder: made if it is not there.
    Raises:
        UserError: it cannot be written, or another process is writing to it.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self._file = open_to_append(folder / f"rank-{rank:05d}.jsonl")

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write records and see them on the disk before returning."""
        append_lines(self._file, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))

    def __enter__(self) -> ProgressFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
