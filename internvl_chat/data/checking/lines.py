"""One annotation line: the files it leads to, and what is wrong with it before any of them is opened."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from internvl_chat.contracts import Sample, TrackFile, TrackRows, UserError
from internvl_chat.data.checking.conversations import Notes, TextFacts, examine_conversation, shortened
from internvl_chat.data.checking.faults import Finding
from internvl_chat.data.checking.headers import MediaKind
from internvl_chat.data.checking.written_tracks import WrittenTrack, read_tracks
from internvl_chat.data.records.annotations import DatasetEntry
from internvl_chat.data.records.names import misspelt_keys, misspelt_media
from internvl_chat.data.records.reader import RecordReader
from internvl_chat.files import RawRecord, parse_json


@dataclass(frozen=True)
class LineFacts:
    """A record as its line states it; `boxes_path` is the box file it uses, `media` its pictures or its video.

    `tracks` are the record's as they are written, `rows` as training reads them.
    """

    line: int
    findings: list[Finding]
    digest: bytes
    record_id: str = ""
    media: tuple[tuple[MediaKind, Path], ...] = ()
    boxes_path: Path | None = None
    text: TextFacts = field(default_factory=TextFacts)
    tracks: tuple[WrittenTrack, ...] = ()
    rows: tuple[TrackRows, ...] = ()
    clip_s: tuple[float, float] | None = None
    size_px: tuple[int, int] | None = None

    @property
    def is_video(self) -> bool:
        return bool(self.media) and self.media[0][0] == "video"


@dataclass(frozen=True)
class LineExaminer:
    """Examines lines of one dataset; worker processes get a copy."""

    entry: DatasetEntry

    @cached_property
    def reader(self) -> RecordReader:
        return self.entry.reader()

    def __call__(self, records: Sequence[RawRecord]) -> list[LineFacts]:
        return [self._examine(record) for record in records]

    def _examine(self, raw: RawRecord) -> LineFacts:
        notes = Notes(self.entry.annotation, raw.line)
        digest = hashlib.blake2b(raw.text.strip().encode("utf-8", "surrogatepass"), digest_size=16).digest()
        try:
            record = parse_json(raw.text, "")
        except UserError as error:
            notes.add("line-json", str(error).removeprefix(": "), "one JSON object")
            return LineFacts(raw.line, notes.findings, digest)
        if not isinstance(record, dict):
            notes.add("record-keys", f"the line is {shortened(record)}", "an object with 'id' and 'conversations'")
            return LineFacts(raw.line, notes.findings, digest)
        _check_keys(record, notes)
        record_id = str(record.get("id", ""))
        written = _written_media(record, notes)
        # A file under a misspelt key is told once, by its key.
        slip = misspelt_media(record)
        kinds = [*(kind for kind, _ in written), *([slip[1]] if slip else [])]
        text = TextFacts()
        if "conversations" in record:
            num_images, num_videos = kinds.count("image"), kinds.count("video")
            text = examine_conversation(
                record["conversations"], num_images, num_videos, record_id, notes, "tracks" in record
            )
        media, boxes_path = self._find_files(written, text, notes)
        tracks = read_tracks(record["tracks"], notes) if "tracks" in record else ()
        clip_s, size_px = _read_clip(record, notes), _read_size(record, notes)
        sample = self._read_as_training_does(record, notes)
        return LineFacts(
            raw.line,
            notes.findings,
            digest,
            record_id,
            media,
            None if "tracks" in record else boxes_path,
            text,
            tracks,
            tuple(track for track in sample.tracks if isinstance(track, TrackRows)) if sample else (),
            clip_s,
            size_px,
        )

    def _find_files(
        self, written: Sequence[tuple[MediaKind, str]], text: TextFacts, notes: Notes
    ) -> tuple[tuple[tuple[MediaKind, Path], ...], Path | None]:
        """Paths of the record's files as training finds them, even where the rest of the record is broken."""
        turns = [{"from": "human", "value": turn.text} for turn in text.turns if turn.speaker == "human"]
        media: list[tuple[MediaKind, Path]] = []
        boxes_path = None
        for kind, name in written:
            bare = {"id": 0, "conversations": turns or [{"from": "human", "value": ""}], kind: name}
            try:
                sample = self.reader.read(bare, "")
            except UserError as error:
                notes.add("media-path", str(error).removeprefix(": "), "a path under the dataset's root")
                continue
            media += [(kind, path) for path in sample.image_paths]
            if sample.video_path is not None:
                media.append((kind, sample.video_path))
            boxes_path = next((track.path for track in sample.tracks if isinstance(track, TrackFile)), None)
        return tuple(media), boxes_path

    def _read_as_training_does(self, record: dict[str, Any], notes: Notes) -> Sample | None:
        """Whatever the rules above let pass and training refuses is an error too."""
        if any(finding.kind.severity == "error" for finding in notes.findings):
            return None
        try:
            sample = self.reader.read(record, "")
        except UserError as error:
            notes.add("record-keys", str(error).removeprefix(": "), "a record that training reads")
            return None
        for number, turn in enumerate(sample.turns, start=1):
            if turn.controls and not sample.tracks:
                notes.add("record-keys", f"turn {number} speaks of a box", "'tracks' that say where it is")
                break
        return sample


def _check_keys(record: dict[str, Any], notes: Notes) -> None:
    missing = [key for key in ("id", "conversations") if key not in record]
    if missing:
        notes.add("record-keys", f"the record has the keys {sorted(record)}", f"also {' and '.join(missing)}")
    slip = misspelt_media(record)
    for key, meant in misspelt_keys(record).items():
        if slip and key == slip[0]:
            notes.add("record-keys", f"the record has the key {key!r}", repr(meant))
        else:
            notes.add("record-unknown", f"the record has the key {key!r}", f"{meant!r}, if that was meant")


def _written_media(record: dict[str, Any], notes: Notes) -> list[tuple[MediaKind, str]]:
    media: list[tuple[MediaKind, str]] = []
    if "image" in record:
        images = record["image"]
        paths = images if isinstance(images, list) else [images]
        if paths and all(isinstance(path, str) for path in paths):
            media += [("image", path) for path in paths]
        else:
            notes.add("record-keys", f"'image' is {shortened(images)}", "a path, or a list of paths")
    if "video" in record:
        if isinstance(record["video"], str):
            media.append(("video", record["video"]))
        else:
            notes.add("record-keys", f"'video' is {shortened(record['video'])}", "one path")
    return media


def _read_clip(record: dict[str, Any], notes: Notes) -> tuple[float, float] | None:
    if "clip" not in record:
        return None
    clip = record["clip"]
    if isinstance(clip, list) and len(clip) == 2 and all(type(v) in (int, float) and abs(v) < 1e9 for v in clip):
        start_s, end_s = float(clip[0]), float(clip[1])
        if 0 <= start_s < end_s:
            return start_s, end_s
    notes.add("clip-range", f"'clip' is {shortened(clip)}", "[start, end] in seconds with 0 <= start < end")
    return None


def _read_size(record: dict[str, Any], notes: Notes) -> tuple[int, int] | None:
    if "width" not in record and "height" not in record:
        return None
    width_px, height_px = record.get("width"), record.get("height")
    if type(width_px) is int and type(height_px) is int and width_px > 0 and height_px > 0:
        return width_px, height_px
    notes.add("record-keys", f"'width' and 'height' are {shortened([width_px, height_px])}", "two sizes in pixels")
    return None
