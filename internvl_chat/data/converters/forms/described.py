"""Objects that other projects describe or name, on their way to records; all faults of a source are told together."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePath
from typing import Any, Literal, Protocol

import numpy as np

from internvl_chat.constants import VIDEO_PLACEHOLDER
from internvl_chat.contracts import UserError
from internvl_chat.data.converters.forms.stated_sizes import check_stated_size, shown_sizes
from internvl_chat.data.converters.forms.tracking import Question
from internvl_chat.data.media.sources import frame_files
from internvl_chat.data.media.video import read_header
from internvl_chat.data.prompts.wordings import question_about
from internvl_chat.data.records.given.judged_tracks import few_of_span
from internvl_chat.data.records.reader import MAX_NAME_BYTES, MAX_PATH_BYTES
from internvl_chat.files import raise_faults

Box = tuple[float, float, float, float]
Order = Literal["xyxy", "xywh"]

# A number as many countries write it.
_COMMA = re.compile(r"-?\d+,\d+")
# A file's header, by which others count its frames, may say one or two that are not shown at its end.
_HEADERS_SLIP = 2


@dataclass(frozen=True)
class ObjectBoxes:
    """One object: its name, and its box by frame number from 0; a frame without one does not show it.

    Args:
        says_all: the source says that the object is absent from the frames without a box, few as they may be.
    """

    name: str
    boxes: Mapping[int, Box]
    order: Order
    unit: str = "pixels"
    says_all: bool = False


@dataclass(frozen=True)
class Described:
    """What becomes one record a text: a video file or folder of frames, the objects of the texts, the texts.

    Args:
        source: where it stands, for messages.
        clip_s: the part of the video that the texts are about.
        size_px: width and height, where the source says.
        num_frames: frames of the video, where the source says; it must have as many.
    """

    id: str
    source: str
    video: Path
    objects: tuple[ObjectBoxes, ...]
    texts: tuple[str, ...]
    clip_s: tuple[float, float] | None = None
    size_px: tuple[int, int] | None = None
    num_frames: int | None = None


class Item(Protocol):
    """Something of a source that is left out whole where a part of it is faulty."""

    is_sound: bool


class Faults:
    """What is wrong with a source, gathered so that it is told at once.

    Args:
        left_out: gets the faults of items, which are then left out; None is for parts of an item, which cannot be.
    """

    def __init__(self, left_out: list[UserError] | None = None) -> None:
        self._errors: list[UserError] = [] if left_out is None else left_out
        self._leaves_out = left_out is not None

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Keep a `UserError` of the block for later, and go on behind the block."""
        try:
            yield
        except UserError as error:
            self._errors.append(error)

    @contextmanager
    def gathered_of(self, item: Item) -> Iterator[None]:
        """Keep a `UserError` of the block, which is about an item that is no longer sound then."""
        with self.gathered():
            try:
                yield
            except UserError:
                item.is_sound = False
                raise

    def tell(self) -> None:
        """Raise them all as one `UserError`, if there are any and they are not those of items that are left out."""
        if not self._leaves_out:
            raise_faults([str(error) for error in self._errors])


def records_of(found: Sequence[Described], root: Path, question: Question, faults: Faults) -> Iterator[dict[str, Any]]:
    """A record a text, with the tracks of its objects; captions of the user's come before the source's texts.

    Videos of the same name in different folders are told apart by their folders: `scene1/frames-dog`.

    Raises:
        UserError: all that is wrong with the source, what its reader found before included, unless `faults` leaves it
            out.
    """
    # A video is counted once, whatever the number of objects in it.
    sound, frames_in, sizes_of = [], cache(_frames_in), cache(shown_sizes)
    for one in _told_apart(found, root):
        with faults.gathered():
            if one.size_px and one.video.exists():
                check_stated_size(one.video, one.size_px, one.source, sizes_of)
            _check(one, root, question, frames_in)
            sound.append(one)
    faults.tell()
    for one in sound:
        asked = f"{VIDEO_PLACEHOLDER}\n{question_about(one.objects[0].name, question.controls)}"
        for number, text in enumerate(question.captions.get(one.id) or one.texts):
            record: dict[str, Any] = {"id": f"{one.id}-{number}", "video": one.video.relative_to(root).as_posix()}
            if one.clip_s:
                record["clip"] = list(one.clip_s)
            if one.size_px:
                record["width"], record["height"] = one.size_px
            turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": text}]
            yield {**record, "tracks": [_track(thing) for thing in one.objects], "conversations": turns}


def named_once(files: Iterable[Path], name_of: Callable[[Path], str]) -> Callable[[str, str], Path | None]:
    """What finds a file by its name alone, wherever it lies; it is given the name and where that stands.

    It returns None for a name that no file has, and raises a `UserError` for one that several have.
    """
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(name_of(file), []).append(file)

    def find(name: str, where: str) -> Path | None:
        first, *others = found.get(name, [None])
        if others:
            raise UserError(f"{where}: {name!r} may be {first} or {others[0]}: give a --root with one of them")
        return first

    return find


def _told_apart(found: Sequence[Described], root: Path) -> list[Described]:
    """The same with ids that no two videos share: they have the video's folder before them, or its whole name in them.

    Raises:
        UserError: not even that tells two videos apart.
    """
    alike = _sharing(found)
    folders = [_in_folder(one, root) if one.video in alike else one for one in found]
    alike = _sharing(folders)
    named = [_with_suffix(one) if one.video in alike else one for one in folders]
    if alike := _sharing(named):
        first = next(one for one in named if one.video in alike)
        other = next(one for one in reversed(named) if one.id == first.id)
        raise UserError(f"{first.source}: {first.video} and {other.video} would both be called {first.id!r}")
    return named


def _sharing(found: Sequence[Described]) -> set[Path]:
    """The videos that share an id with another one."""
    videos: dict[str, set[Path]] = {}
    for one in found:
        videos.setdefault(one.id, set()).add(one.video)
    return {video for sharing in videos.values() if len(sharing) > 1 for video in sharing}


def _in_folder(one: Described, root: Path) -> Described:
    if not one.video.is_relative_to(root):
        return one
    return replace(one, id=(one.video.relative_to(root).parent / one.id).as_posix())


def _with_suffix(one: Described) -> Described:
    """`clip.mkv-1` in place of `clip-1`, where the id begins with the video's name."""
    folder, _, name = one.id.rpartition("/")
    if not name.startswith(one.video.stem):
        return one
    whole = one.video.name + name.removeprefix(one.video.stem)
    return replace(one, id=f"{folder}/{whole}" if folder else whole)


def _check(one: Described, root: Path, question: Question, frames_in: Callable[[Path], int]) -> None:
    if not one.video.exists():
        raise UserError(f"{one.source}: its video {one.video} is not there")
    if not one.video.is_relative_to(root):
        raise UserError(f"{one.source}: its video {one.video} does not lie under the root {root}: give another --root")
    there = one.num_frames
    if one.num_frames is not None:
        there = frames_in(one.video)
        if abs(there - one.num_frames) > (0 if one.video.is_dir() else _HEADERS_SLIP):
            raise UserError(
                f"{one.source}: counts {one.num_frames} frames, {one.video} holds {there}: expected as many, since its "
                "boxes go by them"
            )
    if not any(text.strip() for text in question.captions.get(one.id) or one.texts):
        raise UserError(
            f"{one.source}: has no text to learn: give it a caption or a label there, or --captions with {one.id!r}"
        )
    for thing in one.objects:
        if not thing.boxes:
            raise UserError(f"{one.source}: {thing.name!r} has no box on any frame")
        for frame, (x, y, z, w) in thing.boxes.items():
            if (z < x or w < y) if thing.order == "xyxy" else (z < 0 or w < 0):
                expected = "x1 <= x2 and y1 <= y2" if thing.order == "xyxy" else "a width and a height from 0"
                box = ", ".join(f"{value:g}" for value in (x, y, z, w))
                raise UserError(
                    f"{one.source}: the box on frame {frame}, counted from 0, is {box}: expected {expected}"
                )
        last = max(thing.boxes)
        if min(thing.boxes) < 0 or (there is not None and last >= there):
            number = last if last >= 0 and min(thing.boxes) >= 0 else min(thing.boxes)
            raise UserError(f"{one.source}: has a box on frame {number}, counted from 0, of {there} frames")


def _frames_in(video: Path) -> int:
    return len(frame_files(video)) if video.is_dir() else read_header(video).num_frames


def _track(thing: ObjectBoxes) -> dict[str, Any]:
    boxes = {str(frame): [_short(v) for v in thing.boxes[frame]] for frame in sorted(thing.boxes)}
    track = {"name": thing.name, "boxes": boxes, "by": "frame", "unit": thing.unit, "order": thing.order}
    is_asked = few_of_span(np.array(sorted(thing.boxes), dtype=np.float64)) is not None
    return {**track, "interpolate": False} if thing.says_all and is_asked else track


def _short(value: float) -> float | int:
    return int(value) if float(value).is_integer() else round(value, 6)


def box_of(value: Any, where: str) -> Box:
    """Four finite numbers.

    Raises:
        UserError: it is something else.
    """
    numbers = [v for v in value if type(v) in (int, float) and abs(v) < 1e9] if isinstance(value, list) else []
    if len(numbers) != 4 or len(value) != 4:
        raise UserError(f"{where}: a box is {value!r:.80}: expected four finite numbers")
    x, y, z, w = numbers
    return x, y, z, w


def field(entry: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """A value of an object of JSON; True and False are no numbers.

    Raises:
        UserError: it is missing, or of another kind.
    """
    value = entry.get(key) if isinstance(entry, dict) else None
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if type(value) not in kinds:
        raise UserError(f"{where}: {key!r} is {value!r:.80}: expected {' or '.join(_KINDS[k] for k in kinds)}")
    return value


_KINDS = {int: "a whole number", float: "a number", str: "a text", list: "a list", dict: "an object"}


def path_under(root: Path, value: Any, where: str) -> Path:
    """A path that a source gives relative to `root`.

    Raises:
        UserError: it is none, leaves the root, or is longer than a file system takes.
    """
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise UserError(f"{where}: {value!r:.80} is no path")
    path = PurePath(value.strip())
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{where}: {value!r:.80} leaves the root")
    sizes = [len(part.encode("utf-8", errors="surrogatepass")) for part in path.parts]
    if not sizes or max(sizes) > MAX_NAME_BYTES or sum(sizes) > MAX_PATH_BYTES:
        raise UserError(f"{where}: {value!r:.80} is too long for a path, or none")
    return root / path


def number_of(text: str, where: str) -> float:
    """A finite number of a text file.

    Raises:
        UserError: it is none.
    """
    try:
        # Python takes 1_50 for 150.
        number = math.nan if "_" in text else float(text)
    except ValueError:
        number = math.nan
    if not abs(number) < 1e9:
        word = text.strip()
        point = f": expected a decimal point, {word.replace(',', '.')}" if _COMMA.fullmatch(word) else ""
        raise UserError(f"{where}: {word!r:.40} is no number{point}")
    return number


def whole_number_of(text: str) -> int | None:
    """The number of at most nine digits that a text is, spaces around it apart; None where it is something else."""
    digits = text.strip()
    return int(digits) if digits.isdecimal() and len(digits) <= 9 else None


def line_of(text: str, key: str) -> int:
    """The line of a JSON text on which a key or text first stands; 1 where it is not found."""
    at = text.find(f'"{key}"')
    return text.count("\n", 0, max(at, 0)) + 1


def interpolated(boxes: Mapping[int, Box], until: Mapping[int, int] | None = None) -> dict[int, Box]:
    """Boxes on every frame between key frames, each number on a straight line.

    Args:
        boxes: by frame, the key frames.
        until: key frame -> the last frame that it holds for, where the object then disappears.
    """
    frames, ends = sorted(boxes), until or {}
    filled = dict(boxes)
    for first, last in zip(frames, frames[1:], strict=False):
        if first in ends:
            continue
        for frame in range(first + 1, last):
            share = (frame - first) / (last - first)
            a, b, c, d = (p + share * (q - p) for p, q in zip(boxes[first], boxes[last], strict=True))
            filled[frame] = (a, b, c, d)
    for first, end in ends.items():
        filled |= dict.fromkeys(range(first + 1, end + 1), boxes[first])
    return dict(sorted(filled.items()))
