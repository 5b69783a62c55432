"""Videos to be captioned, found in folders, in lists, or named one by one."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from internvl_chat.boxes import BOX_TEXT_NAME
from internvl_chat.contracts import Track, UserError
from internvl_chat.data.records.given.judged_tracks import read_judged_tracks
from internvl_chat.data.records.given.track_files import tracks_of_file
from internvl_chat.data.records.intentvc import boxes_path_of, category_of, object_name_of
from internvl_chat.files import lookalike, parse_json, read_text, split_records

# A GIF moves too, where a caption is asked for; what ends in .ts may as well be a program.
CAPTIONED_SUFFIXES = frozenset(
    (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".m2ts", ".flv", ".wmv", ".gif")
)
LIST_SUFFIXES = (".txt", ".jsonl", ".csv", ".parquet")
_COLUMNS = ("video", "question")


@dataclass(frozen=True)
class ListedVideo:
    """A video file; `name` is what results call it, `question` and `tracks` are its own where a list gives some."""

    name: str
    path: Path
    question: str | None = None
    tracks: tuple[Track, ...] = ()

    def objects(self) -> tuple[Track, ...]:
        """The tracks of its list; else those beside it: `STEM.json`, or the folder's `object_bboxes.npy` or `.txt`.

        Raises:
            UserError: there are none, they cannot be read, or two have one name.
        """
        beside = [self.path.with_suffix(".json"), boxes_path_of(self.path), self.path.with_name(BOX_TEXT_NAME)]
        file = next((path for path in beside if path.is_file()), None)
        if not self.tracks and file is None:
            names = ", ".join(path.name for path in beside)
            raise UserError(f"{self.path}: no tracks: expected 'tracks' in its list, or one of {names} beside it")
        tracks = self.tracks
        if file is not None and not tracks:
            has_names = file.suffix == ".json"
            tracks = tracks_of_file(file, None if has_names else object_name_of(category_of(self.path.stem)))
        twice = [name for name, count in Counter(track.name for track in tracks).items() if count > 1]
        if twice:
            raise UserError(f"{self.path}: two tracks are called {twice[0]!r}: give them names of their own")
        return tracks


def list_videos(sources: Sequence[Path]) -> list[ListedVideo]:
    """The videos of all sources, in order, each once.

    Args:
        sources: folders, which are searched to the bottom; lists, by their suffix; video files. A folder's videos are
            called by their paths in it, if it is the only source, and a list's as the list has them.
    Raises:
        UserError: a source or a video of a list is not there, a folder or a list holds no video, or a list has a line
            that names none, or two videos would be called alike.
    """
    found: list[ListedVideo] = []
    for source in sources:
        if source.is_dir():
            inside = list(_search(source))
            if not inside:
                raise UserError(f"{source}: holds no videos, expected files such as a.mp4 in it or below")
            found += inside if len(sources) == 1 else [replace(v, name=str(source / v.name)) for v in inside]
        elif not source.is_file():
            raise UserError(f"{source}: is neither a folder of videos, nor a list, nor a video")
        elif source.suffix.lower() in LIST_SUFFIXES:
            listed = [_listed(source, *row) for row in _READERS[source.suffix.lower()](source)]
            if not listed:
                raise UserError(f"{source}: lists no videos")
            found += listed
        else:
            found.append(ListedVideo(str(source), source))
    path_of: dict[str, Path] = {}
    for video in found:
        if path_of.setdefault(video.name, video.path) != video.path:
            raise UserError(f"two videos are called {video.name!r}: {path_of[video.name]} and {video.path}")
    return list(dict.fromkeys(found))


def _search(folder: Path) -> Iterator[ListedVideo]:
    for place, below, names in os.walk(folder):
        below.sort()
        for name in sorted(names):
            path = Path(place, name)
            if path.suffix.lower() in CAPTIONED_SUFFIXES and not name.startswith("."):
                yield ListedVideo(path.relative_to(folder).as_posix(), path)


def _listed(source: Path, where: str, row: Mapping[str, Any]) -> ListedVideo:
    name, question = (row.get(column) for column in _COLUMNS)
    if not isinstance(name, str) or not name or "\0" in name:
        raise UserError(f"{where}: 'video' is {name!r}: expected a path, relative to the list")
    if question is not None and not isinstance(question, str):
        raise UserError(f"{where}: 'question' is {question!r}: expected a text")
    if row.get("clip") is not None:
        raise UserError(
            f"{where}: 'clip' is {row['clip']!r}: a video is captioned whole, or in windows (--window); `answer` takes "
            "records about a part"
        )
    path = source.parent / name
    if not path.is_file():
        raise UserError(f"{where}: video not found: {path}{lookalike(path)}")
    tracks = read_judged_tracks(row, False, where) if row.get("tracks") else ()
    return ListedVideo(name, path, question or None, tuple(tracks))


def _read_lines(source: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    # Names are bytes: what is no UTF-8 in them comes back as Python keeps it in paths.
    for number, line in enumerate(source.read_bytes().split(b"\n"), start=1):
        name = os.fsdecode(line.removesuffix(b"\r"))
        if name.strip():
            yield f"{source}:{number}", {"video": name}


def _read_records(source: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for record in split_records(read_text(source), source):
        where = f"{source}:{record.line}"
        row = parse_json(record.text, where)
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected an object with 'video'")
        yield where, row


def _read_table(source: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    rows = csv.DictReader(io.StringIO(read_text(source), newline=""))
    if _COLUMNS[0] not in (rows.fieldnames or ()):
        raise UserError(f"{source}: its first line names no column 'video'")
    try:
        for row in rows:
            yield f"{source}:{rows.line_num}", row
    except csv.Error as error:
        raise UserError(f"{source}:{rows.line_num}: is no CSV ({error})") from error


def _read_parquet(source: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise UserError(f"{source}: install requirements/parquet.txt to read it ({error})") from error
    try:
        with ParquetFile(source) as file:
            columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
            if _COLUMNS[0] not in columns:
                raise UserError(f"{source}: has no column 'video'")
            number = 0
            for batch in file.iter_batches(columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{source}: row {number}", row
    except (ArrowException, OSError) as error:
        raise UserError(f"{source}: is no Parquet file ({error})") from error


_READERS = {".txt": _read_lines, ".jsonl": _read_records, ".csv": _read_table, ".parquet": _read_parquet}
