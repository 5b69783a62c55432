"""CVAT's "for video" XML: every track becomes a record; key frames are filled in between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

from internvl_chat.contracts import UserError
from internvl_chat.data.converters.forms.conversion import Conversion
from internvl_chat.data.converters.forms.described import (
    Box,
    Described,
    Faults,
    ObjectBoxes,
    interpolated,
    number_of,
    path_under,
    records_of,
)
from internvl_chat.files import read_text

_CORNERS = ("xtl", "ytl", "xbr", "ybr")


@dataclass
class _Track:
    """A `<track>` while it is read: boxes and frames of its `<box>` elements, and those that say `outside`."""

    key: str
    label: str
    line: int
    boxes: dict[int, Box] = field(default_factory=dict)
    outside: list[int] = field(default_factory=list)
    is_sound: bool = True


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """A record a track: label, x1 y1 x2 y2 in pixels by frame from 0, absent from a frame marked `outside` on.

    The video is `<source>` of the file, under `root`. An object's id is `<video>-<track>`, the key of `--captions`;
    without a caption its label is the answer.

    Raises:
        UserError: no such XML, or all tracks that cannot be used, by line.
    """
    reader = _Reader(source, options.faults)
    reader.read(read_text(source))
    video, found = path_under(options.root, reader.video, f"{source}: 'source'"), []
    # A track with a faulty box is left out whole: it would have a hole, or be drawn straight across it.
    for track in (track for track in reader.tracks if track.is_sound):
        thing = ObjectBoxes(track.label, _filled(track), "xyxy", says_all=True)
        where = f"{source}:{track.line}: track {track.key}"
        name, size_px = f"{video.stem}-{track.key}", reader.stated_size()
        found.append(Described(name, where, video, (thing,), (track.label,), size_px=size_px))
    yield from records_of(found, options.root, options.question, Faults(options.faults))


def _filled(track: _Track) -> dict[int, Box]:
    """Boxes on the frames between key frames; none from an `outside` to the next box."""
    until = dict[int, int]()
    for gone in sorted(track.outside):
        before = [frame for frame in track.boxes if frame < gone]
        if before:
            # The first `outside` behind a box counts: exports of every frame repeat it until the object is back.
            until.setdefault(max(before), gone - 1)
    return interpolated(track.boxes, until)


class _Reader:
    """Reads the file element by element, with lines for messages; a document type is refused, since it can expand."""

    def __init__(self, path: Path, left_out: list[UserError]) -> None:
        self.path = path
        self.tracks, self.video = list[_Track](), ""
        self.size_px = dict[str, int]()
        self._faults = Faults(left_out)
        self._text, self._parents = "", list[str]()
        self._parser = expat.ParserCreate("utf-8")
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.StartDoctypeDeclHandler = self._refuse

    def read(self, text: str) -> None:
        try:
            self._parser.Parse(text.encode("utf-8", errors="surrogatepass"), True)
        except expat.ExpatError as error:
            raise UserError(f"{self.path}:{error.lineno}: is no valid XML ({expat.ErrorString(error.code)})") from error
        if not self.tracks:
            raise UserError(f"{self.path}: holds no records: no <track>; export as 'CVAT for video'")

    def stated_size(self) -> tuple[int, int] | None:
        """Width and height of the video in pixels, where the file has them."""
        return (self.size_px["width"], self.size_px["height"]) if len(self.size_px) == 2 else None

    def _refuse(self, *_: object) -> None:
        raise UserError(f"{self.path}:{self._parser.CurrentLineNumber}: has a document type, which CVAT never writes")

    def _start(self, element: str, attributes: Mapping[str, str]) -> None:
        line, self._text = self._parser.CurrentLineNumber, ""
        self._parents.append(element)
        if element == "track":
            self.tracks.append(_Track(attributes.get("id", ""), attributes.get("label", "").strip(), line))
            if not self.tracks[-1].label:
                with self._faults.gathered_of(self.tracks[-1]):
                    raise UserError(f"{self.path}:{line}: a track without 'label'")
        elif element == "box" and self.tracks and "track" in self._parents:
            with self._faults.gathered_of(self.tracks[-1]):
                self._box(attributes, f"{self.path}:{line}")

    def _box(self, attributes: Mapping[str, str], where: str) -> None:
        missing = [key for key in ("frame", *_CORNERS) if key not in attributes]
        if missing:
            raise UserError(f"{where}: a box without {', '.join(missing)}")
        frame = number_of(attributes["frame"], where)
        if frame < 0 or not frame.is_integer():
            raise UserError(f"{where}: frame {frame:g} is expected to be whole, from 0")
        if int(frame) in self.tracks[-1].boxes or int(frame) in self.tracks[-1].outside:
            raise UserError(f"{where}: the track has two boxes on frame {frame:g}")
        if attributes.get("outside") == "1":
            self.tracks[-1].outside.append(int(frame))
            return
        if number_of(attributes.get("rotation", "0"), where) % 360:
            raise UserError(f"{where}: the box on frame {frame:g} is turned: expected upright ones")
        x1, y1, x2, y2 = (number_of(attributes[key], where) for key in _CORNERS)
        self.tracks[-1].boxes[int(frame)] = (x1, y1, x2, y2)

    def _characters(self, text: str) -> None:
        self._text += text

    def _end(self, element: str) -> None:
        if element in ("width", "height") and self._parents[-2:-1] == ["original_size"]:
            self.size_px[element] = int(number_of(self._text, f"{self.path}:{self._parser.CurrentLineNumber}"))
        if element == "source":
            source = self._text.strip()
            if self.video and source != self.video:
                # Frames of a project's export count through all of its videos.
                raise UserError(
                    f"{self.path}:{self._parser.CurrentLineNumber}: names a second video, {source!r:.80} after "
                    f"{self.video!r:.80}: expected the export of one task; export the tasks of a project one by one"
                )
            self.video = source
        self._parents.pop()
