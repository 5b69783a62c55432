"""One record of an annotation file to a `Sample`: its kind is told by its keys, its paths stay under the root.

Every key is checked here, so that what a `Sample` holds can be used without asking; files are opened later.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from internvl_chat.boxes import BOX_TEXT_NAME, is_absent
from internvl_chat.choices import COUNTED_IN as COUNTED_IN
from internvl_chat.constants import BOX_SCALE, FEATURES_SUFFIX, IMAGE_PLACEHOLDER
from internvl_chat.contracts import Sample, Track, TrackFile, TrackRows, Turn, UserError
from internvl_chat.data.prompts.wordings import question_turn
from internvl_chat.data.records.intentvc import boxes_path_of, category_of, object_name_of
from internvl_chat.data.records.names import check_media_keys, check_name

SPEAKERS = ("system", "human", "gpt")
BOX_UNITS = ("pixels", "unit", "thousandths")
BOX_ORDERS = ("xyxy", "xywh")
TRACK_KEYS = ("frame", "second")
TRACK_FIELDS = ("name", "boxes", "by", "unit", "order", "absent", "counted_in", "interpolate")

# What file systems take; longer names would raise where a file is merely looked for.
MAX_NAME_BYTES, MAX_PATH_BYTES = 255, 2000

_SECOND = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_FRAME = re.compile(r"[0-9]{1,9}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:")


class RecordReader:
    """Reads the records of one dataset.

    Args:
        root: the folder that the paths of its records are relative to.
        object_names: names of categories beside `OBJECT_NAMES`.
        max_dynamic_patch, data_augment, every_frame: handed on with each sample.
        allow_outside_root: let paths leave `root`: absolute ones, `..`, and links.
        boxes_root: a folder like `root` that holds the boxes of its videos in their stead.
    """

    def __init__(
        self,
        root: Path,
        *,
        object_names: Mapping[str, str] | None = None,
        max_dynamic_patch: int | None = None,
        data_augment: bool = False,
        every_frame: bool = False,
        allow_outside_root: bool = False,
        boxes_root: Path | None = None,
    ) -> None:
        self.root = root
        self.object_names = object_names or {}
        self.max_dynamic_patch = max_dynamic_patch
        self.data_augment = data_augment
        self.every_frame = every_frame
        self.boxes_root = boxes_root
        self.confined_to = None if allow_outside_root else Path(os.path.realpath(root))
        self._real_folders: dict[str, str] = {}
        self._paths: dict[str, Path] = {}  # found good before: several records are about one video

    def read(self, record: Any, source: str) -> Sample:
        """The sample of a record.

        Args:
            record: what its JSON holds.
            source: `file:line`, for messages.
        Raises:
            UserError: a key is missing or not what is expected, or a path leaves the root.
        """
        if not isinstance(record, dict):
            raise UserError(f"{source}: expected an object with 'id' and 'conversations', got {_shown(record)}")
        sample_id = record.get("id")
        if not isinstance(sample_id, (str, int)) or isinstance(sample_id, bool):
            raise UserError(f"{source}: 'id' is {_shown(sample_id)}: expected a text or a number")
        check_media_keys(record, source)
        turns = _read_turns(record.get("conversations"), source)
        image_paths = self._image_paths(record["image"], source) if "image" in record else ()
        video_path = self._video_path(record["video"], source) if "video" in record else None
        features_path = self._features_path(record, video_path, source)
        if len(image_paths) == 1:
            turns = _with_image_placeholder(turns)
        if "tracks" in record and not image_paths and video_path is None:
            raise UserError(f"{source}: has 'tracks' but neither 'image' nor 'video'")
        if "clip" in record and video_path is None:
            raise UserError(f"{source}: has 'clip' but no 'video'")
        tracks: Sequence[Track] = ()
        if "tracks" in record:
            tracks = read_tracks(record, bool(image_paths), source)
        elif video_path is not None:
            tracks = self._tracks_beside(video_path, turns, source)
        return Sample(
            str(sample_id),
            turns,
            source,
            image_paths,
            video_path,
            _read_clip(record["clip"], source) if "clip" in record else None,
            tuple(tracks),
            self.confined_to,
            self.max_dynamic_patch,
            self.data_augment,
            self.every_frame,
            features_path=features_path,
        )

    def _image_paths(self, value: Any, source: str) -> tuple[Path, ...]:
        names = value if isinstance(value, list) else [value]
        if not names:
            raise UserError(f"{source}: 'image' is an empty list: expected a path, or a list of paths")
        return tuple(self._path(name, "image", source) for name in names)

    def _video_path(self, value: Any, source: str) -> Path:
        path = self._path(value, "video", source)
        parts = PurePath(value).parts
        # IntentVC's annotations leave out the category's folder.
        if len(parts) == 2 and PurePath(value).stem == parts[0] and not path.exists():
            return self._path(f"{category_of(parts[0])}/{value}", "video", source)
        return path

    def _features_path(self, record: Mapping[str, Any], video_path: Path | None, source: str) -> Path | None:
        """Features beside a video, or a video that is given as its features."""
        if "features" in record:
            if video_path is None:
                raise UserError(f"{source}: has 'features' but no 'video'; features alone are given as the 'video'")
            return self._path(record["features"], "features", source)
        is_features = video_path is not None and video_path.suffix == FEATURES_SUFFIX
        if is_features and "tracks" in record:
            raise UserError(f"{source}: has 'tracks' in a video that is given as features: give 'video' and 'features'")
        return video_path if is_features else None

    def _path(self, value: Any, key: str, source: str) -> Path:
        name = _text(value, key, source)
        if name not in self._paths:
            self._paths[name] = self._path_of(name, key, source)
        return self._paths[name]

    def _path_of(self, name: str, key: str, source: str) -> Path:
        parts = PurePath(name).parts
        if not parts or "\0" in name:
            raise UserError(f"{source}: {key!r} is {_shown(name)}: expected a path relative to the dataset's root")
        if _URL.match(name):
            raise UserError(
                f"{source}: {key!r} is {_shown(name)}: is a URL: fetch the file, and give its path under the root"
            )
        if len(name.encode()) > MAX_PATH_BYTES or max(len(part.encode()) for part in parts) > MAX_NAME_BYTES:
            raise UserError(f"{source}: {key!r} is {_shown(name)}: is too long for a path")
        path = self.root / name
        if self.confined_to is None:
            return path
        way_out = "keep files under the root, or set 'allow_outside_root' in the meta JSON"
        if PurePath(name).is_absolute() and path.resolve().is_relative_to(self.confined_to):
            inside = path.resolve().relative_to(self.confined_to)
            raise UserError(f"{source}: {key!r} is {_shown(name)}: expected a path relative to the root: '{inside}'")
        if ".." in parts or PurePath(name).is_absolute():
            raise UserError(f"{source}: {key!r} is {_shown(name)}: leaves the dataset's root; {way_out}")
        if self._leads_out(path):
            raise UserError(f"{source}: {key!r} is {_shown(name)}: a link leads out of the dataset's root; {way_out}")
        return path

    def _leads_out(self, path: Path) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(folder)
        real = os.path.join(self._real_folders[folder], name)
        real = os.path.realpath(real) if os.path.islink(real) else real
        return self.confined_to is not None and not Path(real).is_relative_to(self.confined_to)

    def _tracks_beside(self, video_path: Path, turns: Sequence[Turn], source: str) -> tuple[Track, ...]:
        """The npy beside the video; also where it is missing but the question or a box text there calls for it."""
        in_root = self.boxes_root if video_path.is_relative_to(self.root) else None
        path = boxes_path_of(video_path, self.root, in_root)
        is_asked_for = any(turn.controls for turn in turns)
        if not (path.is_file() or is_asked_for or video_path.with_name(BOX_TEXT_NAME).is_file()):
            return ()
        if self.boxes_root is None and self._leads_out(path):
            raise UserError(f"{source}: {path}: a link leads out of the dataset's root")
        name = check_name(object_name_of(category_of(video_path.stem), self.object_names), source)
        return (TrackFile(name, path),)


def _shown(value: Any) -> str:
    """A value as a message shows it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _text(value: Any, key: str, source: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{source}: {key!r} is {_shown(value)}: expected a text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"{source}: {key!r} holds half of a character pair: {_shown(value)}") from error
    return value


def _read_turns(conversations: Any, source: str) -> tuple[Turn, ...]:
    if not isinstance(conversations, list) or not conversations:
        raise UserError(f"{source}: 'conversations' is {_shown(conversations)}: expected a list of turns")
    turns = []
    for number, turn in enumerate(conversations, start=1):
        if not isinstance(turn, dict) or not {"from", "value"} <= turn.keys():
            raise UserError(f"{source}: turn {number} is {_shown(turn)}: expected 'from' and 'value'")
        if turn["from"] not in SPEAKERS:
            raise UserError(
                f"{source}: turn {number} is from {_shown(turn['from'])}: expected one of {', '.join(SPEAKERS)}"
            )
        text = _text(turn["value"], "value", source)
        turns.append(question_turn(text) if turn["from"] == "human" else Turn(turn["from"], text))
    return tuple(turns)


def _with_image_placeholder(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """A record with one image may leave its placeholder out: the image then comes before the first question."""
    asked = [turn for turn in turns if turn.speaker == "human"]
    if not asked or any(IMAGE_PLACEHOLDER in turn.text for turn in asked):
        return turns
    first = turns.index(asked[0])
    with_image = replace(turns[first], text=f"{IMAGE_PLACEHOLDER}\n{turns[first].text}")
    return (*turns[:first], with_image, *turns[first + 1 :])


def _read_clip(value: Any, source: str) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2 or not all(_is_number(v) for v in value):
        raise UserError(f"{source}: 'clip' is {_shown(value)}: expected [start, end] in seconds")
    start_s, end_s = float(value[0]), float(value[1])
    if not 0 <= start_s < end_s:
        raise UserError(f"{source}: 'clip' is {_shown(value)}: expected 0 <= start < end")
    return start_s, end_s


def _is_number(value: Any) -> bool:
    """A finite JSON number of a size that coordinates and times have; True and False are none."""
    return type(value) in (int, float) and abs(value) < 1e9


def read_tracks(record: Mapping[str, Any], of_images: bool, source: str) -> tuple[TrackRows, ...]:
    """The `tracks` of a record; `width` and `height` beside them say what pixels were counted in.

    Raises:
        UserError: a key is missing or not what is expected.
    """
    tracks = record.get("tracks")
    if not isinstance(tracks, list) or not tracks:
        raise UserError(f"{source}: 'tracks' is {_shown(tracks)}: expected a list of tracks")
    size_px = None
    if "width" in record or "height" in record:
        size_px = (record.get("width"), record.get("height"))
        if not all(type(v) is int and v > 0 for v in size_px):
            raise UserError(f"{source}: 'width' and 'height' are {_shown(size_px)}: expected two sizes in pixels")
    return tuple(
        _read_track(track, of_images, cast("tuple[int, int] | None", size_px), f"{source}: track {number}")
        for number, track in enumerate(tracks, start=1)
    )


def _choice(track: Mapping[str, Any], key: str, choices: Sequence[str], source: str) -> Any:
    if (value := track.get(key)) not in choices:
        hint = "; fractions of the picture's sides are 'unit'" if key == "unit" else ""
        raise UserError(f"{source}: {key!r} is {_shown(value)}: expected one of {', '.join(choices)}{hint}")
    return value


def _read_track(track: Any, of_images: bool, size_px: tuple[int, int] | None, source: str) -> TrackRows:
    if not isinstance(track, dict):
        raise UserError(f"{source} is {_shown(track)}: expected an object with name, boxes, unit and order")
    unknown = sorted(track.keys() - set(TRACK_FIELDS))
    if unknown:
        raise UserError(f"{source}: unknown keys {_shown(unknown)}: expected {', '.join(TRACK_FIELDS)}")
    name = check_name(_text(track.get("name"), "name", source), source)
    by = _choice({"by": "frame", **track}, "by", TRACK_KEYS, source)
    if of_images and by == "second":
        raise UserError(f"{source}: 'by' is 'second': images have no time, expected 'frame'")
    unit, order = _choice(track, "unit", BOX_UNITS, source), _choice(track, "order", BOX_ORDERS, source)
    in_stored = _choice({"counted_in": "shown", **track}, "counted_in", COUNTED_IN, source) == "stored"
    given = track.get("boxes")
    if isinstance(given, dict):
        positions, rows = _read_positions(list(given), by, source), list(given.values())
        ranks = np.argsort(positions, kind="stable")
    elif isinstance(given, list):
        positions, rows = np.arange(len(given), dtype=np.float64), given
        ranks = np.arange(len(given))
    else:
        raise UserError(f"{source}: 'boxes' is {_shown(given)}: expected a list, or an object of {by} and box")
    corners = _read_boxes(rows, source)
    if order == "xywh":
        corners[:, 2:] += corners[:, :2]
    corners /= BOX_SCALE if unit == "thousandths" else 1
    absent = track.get("absent", [])
    if not isinstance(absent, list) or not all(type(v) is int and 0 <= v < 1e9 for v in absent):
        raise UserError(f"{source}: 'absent' is {_shown(absent)}: expected a list of frame numbers from 0")
    return TrackRows(
        name,
        positions[ranks],
        corners[ranks],
        by,
        in_pixels=unit == "pixels",
        is_complete=isinstance(given, list) and by == "frame",
        absent=frozenset(absent),
        size_px=size_px,
        in_stored=in_stored,
        interpolates=_interpolates(track, corners, source),
    )


def _interpolates(track: Mapping[str, Any], corners: npt.NDArray[np.float64], source: str) -> bool:
    value = track.get("interpolate", False)
    if not isinstance(value, bool):
        raise UserError(f"{source}: 'interpolate' is {_shown(value)}: expected true or false")
    if value and not isinstance(track.get("boxes"), dict):
        raise UserError(f"{source}: 'interpolate' is true: expected 'boxes' as an object of key frame and box")
    if value and is_absent(corners).any():
        # Nobody knows when it left, and the boxes up to there would shrink into a corner.
        key = list(track["boxes"])[int(np.argmax(is_absent(corners)))]
        raise UserError(
            f"{source}: 'interpolate' is true, and the box of {_shown(key)} has no area: leave it out, and list the "
            "frames without the object as 'absent'"
        )
    return value


def _read_positions(keys: Sequence[str], by: str, source: str) -> npt.NDArray[np.float64]:
    pattern = _FRAME if by == "frame" else _SECOND
    for key in keys:
        if not pattern.fullmatch(key):
            raise UserError(f"{source}: 'boxes' has the key {_shown(key)}: expected the number of a {by}, from 0")
    positions = np.array([float(key) for key in keys])
    if len(np.unique(positions)) != len(positions):
        raise UserError(f"{source}: 'boxes' names a {by} twice")
    return positions


def _read_boxes(rows: Sequence[Any], source: str) -> npt.NDArray[np.float64]:
    if not rows:
        raise UserError(f"{source}: 'boxes' is empty: leave the track out, or list its frames as 'absent'")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, list) or len(row) != 4 or not all(_is_number(v) for v in row):
            raise UserError(f"{source}: box {number} is {_shown(row)}: expected four finite numbers")
    return np.array(rows, dtype=np.float64)
