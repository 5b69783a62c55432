"""Captions of videos as files: JSONL always, and the forms that trainers of other models read."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from internvl_chat.contracts import UserError
from internvl_chat.files import replacing, write_jsonl, write_text

FAILURES_NAME, PROMPTS_NAME, VIDEOS_NAME = "failures.jsonl", "prompts.txt", "videos.txt"
PARQUET_NAME, TEXTS_NAME = "captions.parquet", "txt"


def write_failures(out: Path, failures: Sequence[Mapping[str, Any]]) -> None:
    """`failures.jsonl`, or none where nothing failed."""
    if failures:
        write_jsonl(out / FAILURES_NAME, failures)
    else:
        (out / FAILURES_NAME).unlink(missing_ok=True)


@dataclass(frozen=True)
class Forms:
    """In which forms captions are written beside `captions.jsonl`."""

    txt: bool = False
    layout: bool = False
    parquet: bool = False

    def and_those_in(self, out: Path) -> Forms:
        """With those that an earlier run wrote: what it left would say something else than `captions.jsonl`."""
        return Forms(
            self.txt or (out / TEXTS_NAME).is_dir(),
            self.layout or (out / PROMPTS_NAME).is_file(),
            self.parquet or (out / PARQUET_NAME).is_file(),
        )

    def check(self, names: Iterable[str], *, several_each: bool) -> None:
        """See before the work that they can be written.

        Args:
            names: of the videos.
            several_each: a video may have several captions.
        Raises:
            UserError: the layout has no room for them or for a name, or pyarrow is not installed.
        """
        if self.layout and several_each:
            raise UserError(
                f"--out holds {PROMPTS_NAME}, which has one caption a video: with --window or --objects give a new one"
            )
        broken = next((name for name in names if len(name.splitlines()) != 1), None) if self.layout else None
        if broken is not None:
            raise UserError(f"--layout cogvideox: the name {broken!r} holds a line break; rename the file")
        if self.parquet:
            _parquet_writer()

    def write(self, out: Path, records: Sequence[Mapping[str, Any]]) -> None:
        """Write those that are wanted.

        Raises:
            UserError: a file cannot be written.
        """
        if self.txt:
            write_texts(out, records)
        if self.layout:
            write_layout(out, records)
        if self.parquet:
            write_parquet(out, records)


def write_layout(out: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """CogVideoX's layout: `prompts.txt` and `videos.txt`, line by line; line breaks in captions become spaces.

    Names hold no line break, as `Forms.check` saw to.
    """
    names = [record["video"] for record in records]
    captions = [" ".join(record["caption"].split()) for record in records]
    write_text(out / PROMPTS_NAME, "".join(f"{caption}\n" for caption in captions))
    _write_bytes(out / VIDEOS_NAME, b"".join(os.fsencode(name) + b"\n" for name in names))


def write_texts(out: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """One text file a video under `txt/`, called as the video is; captions of windows one a line.

    Those that an earlier run left there are removed, so that no video has another run's.

    Raises:
        UserError: a file cannot be written or removed.
    """
    captions: dict[str, list[str]] = defaultdict(list)
    for record in records:
        captions[record["video"]].append(record["caption"])
    inside = {name: _inside(name) for name in captions}
    taken = Counter(path.with_suffix(".txt") for path in inside.values())
    _empty(out / TEXTS_NAME)
    for name, texts in captions.items():
        path = inside[name].with_suffix(".txt")
        # `a.mp4` and `a.mkv` side by side keep their endings.
        path = path if taken[path] == 1 else inside[name].with_name(inside[name].name + ".txt")
        write_text(out / TEXTS_NAME / path, "".join(f"{text}\n" for text in texts))


def _empty(folder: Path) -> None:
    """Remove the texts of a folder and below, and nothing else."""
    for path in folder.rglob("*.txt"):
        try:
            path.unlink()
        except OSError as error:
            raise UserError(f"{path}: cannot be removed ({error.strerror})") from error


def _inside(name: str) -> PurePosixPath:
    """A name as a path that does not lead out of a folder."""
    return PurePosixPath(*(part for part in PurePosixPath(name).parts if part not in ("/", "//", "..")))


def write_parquet(out: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """`captions.parquet`, all records as one table.

    Raises:
        UserError: pyarrow is not installed, or the file cannot be written.
    """
    Table, write_table = _parquet_writer()
    path = out / PARQUET_NAME
    printable = [{**record, "video": os.fsencode(record["video"]).decode(errors="replace")} for record in records]
    try:
        with replacing(path) as temporary:
            write_table(Table.from_pylist(printable), temporary)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


def _parquet_writer() -> tuple[Any, Any]:
    """pyarrow's table and what writes one."""
    try:
        from pyarrow import Table
        from pyarrow.parquet import write_table
    except ImportError as error:
        raise UserError(f"--parquet: install requirements/parquet.txt ({error})") from error
    return Table, write_table


def _write_bytes(path: Path, content: bytes) -> None:
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
