"""Records with a box here and there, to records with a box for every frame; a killed run goes on where it stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from internvl_chat.contracts import TrackRows, UserError
from internvl_chat.data.media.sources import content_mark
from internvl_chat.data.media.video import VideoBackend
from internvl_chat.data.records.reader import RecordReader
from internvl_chat.files import json_text, parse_json, read_text, split_records
from internvl_chat.journal import Journal
from internvl_chat.trackers.following import FollowedObjects, follow, given_of_track
from internvl_chat.trackers.frames import Footage
from internvl_chat.trackers.protocol import TrackerFactory

# Records that are only to be tracked need not ask anything.
_NO_QUESTION = {"conversations": [{"from": "human", "value": "<video>"}]}


@dataclass(frozen=True)
class TrackerSettings:
    """What decides a track beside the video and the boxes; `name` tells trackers apart in the file of progress."""

    name: str
    make: TrackerFactory
    min_confidence: float
    backend: VideoBackend = "pyav"


@dataclass(frozen=True)
class VideoToTrack:
    """A record with a video and tracks that are to be completed."""

    record: Mapping[str, Any]
    source: str
    path: Path
    tracks: tuple[TrackRows, ...]

    def key(self, settings: TrackerSettings) -> str:
        """Tells this piece of work from any other: the record, the video's content, the tracker."""
        said = f"{json_text(self.record)} {content_mark(self.path)} {settings.name} {settings.min_confidence}"
        return hashlib.sha256(said.encode("utf-8", errors="surrogatepass")).hexdigest()


def videos_to_track(path: Path, root: Path) -> list[VideoToTrack]:
    """The records of a file, each with a `video` under `root` and `tracks`; `conversations` may be left out.

    Raises:
        UserError: one is no such record; the message names file and line.
    """
    reader, found = RecordReader(root), []
    for raw in split_records(read_text(path), path):
        source = f"{path}:{raw.line}"
        record = parse_json(raw.text, source)
        sample = reader.read({**_NO_QUESTION, **record} if isinstance(record, dict) else record, source)
        rows = tuple(track for track in sample.tracks if isinstance(track, TrackRows))
        if sample.video_path is None or not rows:
            raise UserError(f"{source}: expected 'video' and 'tracks', a box or more for each object to follow")
        found.append(VideoToTrack(record, source, sample.video_path, rows))
    if not found:
        raise UserError(f"{path}: holds no records")
    return found


def complete_records(
    videos: Sequence[VideoToTrack],
    settings: TrackerSettings,
    progress: Path,
    failures: list[str],
    on_video: Callable[[], object] = lambda: None,
) -> Iterator[dict[str, Any]]:
    """Each record with complete tracks and `track_confidence`, a list a track; what is in `progress` is not redone.

    Args:
        failures: gets a line for each record that is left out because its video cannot be read or followed.
        on_video: called after each of them.
    Raises:
        UserError: `progress` cannot be used.
    """
    with Journal(progress) as journal:
        for video in videos:
            try:
                key = video.key(settings)
                if key not in journal.done:
                    journal.note(key, _completed(video, settings))
            except UserError as error:
                failures.append(f"{video.source}: {error}")
            else:
                yield {**video.record, **journal.done[key]}
            on_video()


def _completed(video: VideoToTrack, settings: TrackerSettings) -> dict[str, Any]:
    footage = Footage(video.path, settings.backend)
    objects = [given_of_track(track, footage) for track in video.tracks]
    followed = follow(footage, objects, settings.make, settings.min_confidence)
    return {
        "tracks": tracks_as_json([one.name for one in objects], followed),
        "track_confidence": [rounded(row, 3) for row in followed.confidence],
    }


def tracks_as_json(names: Sequence[str], followed: FollowedObjects) -> list[dict[str, Any]]:
    """Tracks in a record's form, a box for each frame; an absent one has no area."""
    return [
        {"name": name, "boxes": [rounded(box, 1) for box in boxes], "by": "frame", "unit": "pixels", "order": "xywh"}
        for name, boxes in zip(names, followed.boxes_px, strict=True)
    ]


def track_text(boxes_px: npt.NDArray[np.float64]) -> str:
    """Boxes [T, 4] as the lines of `object_bboxes.txt`."""
    return "".join(",".join(map(str, rounded(box, 1))) + "\n" for box in boxes_px)


def rounded(values: npt.NDArray, digits: int) -> list[float | int]:
    """Numbers to so many digits; whole ones without a point."""
    short = (round(float(value), digits) for value in values)
    return [int(value) if value.is_integer() else value for value in short]
