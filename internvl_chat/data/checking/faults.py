"""Every kind of fault that the check can find: its stable code, how bad it is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Kind:
    """A kind of fault. An error breaks or spoils training; a warning is worth a look.

    `repairable`: `check --fix` can mend it without guessing, always or in the cases that `advice` names.
    """

    code: str
    severity: Severity
    title: str
    advice: str
    repairable: bool = False


@dataclass(frozen=True)
class Finding:
    """One fault: where it is (`line` 0: the file as a whole), what is there and what was expected.

    `used_at` is an annotation line that leads to `file`, where that is not the annotation itself.
    """

    code: str
    file: Path
    line: int
    found: str
    expected: str
    used_at: tuple[Path, int] | None = None

    @property
    def kind(self) -> Kind:
        return KINDS[self.code]

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}" if self.line else str(self.file)

    def __str__(self) -> str:
        used = f" (used at {self.used_at[0]}:{self.used_at[1]})" if self.used_at else ""
        return f"{self.where}: {self.found}; expected {self.expected}{used}"


class Fault(NamedTuple):
    """A code of the catalogue, what is there and what was expected, before it is said where."""

    code: str
    found: str
    expected: str

    def at(self, file: Path, line: int, used_at: tuple[Path, int] | None = None) -> Finding:
        return Finding(self.code, file, line, self.found, self.expected, used_at)


_FIX = "--fix repairs it"
_ERRORS = [
    Kind("meta-json", "error", "The meta JSON cannot be used", "give a JSON object with one entry a dataset"),
    Kind("meta-entry", "error", "An entry of the meta JSON is not understood", "correct or remove the key"),
    Kind("meta-root", "error", "An entry's root is no folder", "edit 'root' to where the files lie"),
    Kind("meta-annotation", "error", "An entry's annotation cannot be read", "correct the path, or save it as UTF-8"),
    Kind("annotation-empty", "error", "An annotation holds no records", "write it again, or drop the entry"),
    Kind("line-json", "error", "A line is not JSON", "write the line again"),
    Kind("record-keys", "error", "A record lacks a key, or a key holds the wrong kind", "correct the record"),
    Kind("turn-keys", "error", "A turn does not say 'from' and 'value'", "--fix renames 'text' or 'content'", True),
    Kind("turn-speaker", "error", "A turn has an unknown speaker", "--fix renames 'user', 'assistant' and 'bot'", True),
    Kind("turn-order", "error", "Turns are out of order", "let 'human' and 'gpt' take turns, 'gpt' last"),
    Kind("answer-empty", "error", "An answer is empty", "write the answer, or drop the record"),
    Kind("placeholder-count", "error", "Placeholders and files differ in number", "write one placeholder a file"),
    Kind("placeholder-break", "error", "No line break after <video>", _FIX, True),
    Kind("placeholder-video", "error", "The video has no placeholder", "--fix puts it first", True),
    Kind(
        "placeholder-place", "error", "A placeholder in the wrong turn", "move it to a question; <video>, to the first"
    ),
    Kind("text-token", "error", "A text holds a control token of the chat", "remove or rewrite it"),
    Kind("media-path", "error", "A path leads out of its root, or is none", "keep files under the root"),
    Kind("media-missing", "error", "A file is missing", "bring the file back, or drop the records"),
    Kind("media-unreadable", "error", "A file is no picture or video", "fetch or encode the file again"),
    Kind("media-truncated", "error", "A file ends early", "fetch the file again"),
    Kind("media-kind", "error", "A video under 'image', or a picture under 'video'", "use the other key"),
    Kind("clip-range", "error", "A clip lies outside its video", "give [start, end] in seconds inside the video"),
    Kind("box-file-missing", "error", "No boxes beside a video", "run generate_npy_bboxes.py"),
    Kind("box-file-unreadable", "error", "A box file cannot be read", "run generate_npy_bboxes.py --overwrite"),
    Kind("box-file-stale", "error", "A box file is not of its source", "run generate_npy_bboxes.py"),
    Kind("box-rows", "error", "Boxes and frames differ in number", "give one box a frame, or a picture"),
    Kind("box-shape", "error", "A box is not four numbers", "write four numbers a box"),
    Kind("box-nan", "error", "A box holds NaN or infinity", "write the box again, or mark the frame absent"),
    Kind("box-range", "error", "A box leaves the range of its unit", "clamp the box, or correct 'unit'"),
    Kind("box-degenerate", "error", "A box in a text has no area", "write x1 < x2 and y1 < y2, or leave it out"),
    Kind("box-order", "error", "Boxes are in another order than stated", "convert them, or state the order they have"),
    Kind("box-unit", "error", "Boxes are in another unit than stated", "convert them, or state the unit they have"),
    Kind("box-syntax", "error", "A box in a text is malformed", "write <ref>name</ref><box>[[x1, y1, x2, y2]]</box>"),
    Kind("box-digits", "error", "A box in a text has digits that are not ASCII", _FIX, True),
    Kind("track-keys", "error", "A track has an unknown key or value", "correct the key or the value"),
    Kind("track-refused", "error", "Training cannot use a track", "correct the track"),
    Kind("track-frames", "error", "A track names frames its video does not have", "correct the frame numbers"),
    Kind("length-budget", "error", "A record is longer than the model takes", "shorten it, or raise --max_seq_length"),
]
_WARNINGS = [
    Kind("meta-length", "warning", "'length' is not the number of records", _FIX, True),
    Kind("record-unknown", "warning", "A record has a key that is never read", "correct or remove the key"),
    Kind("record-repeated", "warning", "A record stands twice", "--fix keeps the first; repeat_time weighs data", True),
    Kind("id-repeated", "warning", "Different records share an id", "give every record its own id"),
    Kind("question-empty", "warning", "A question is empty", "write the question"),
    Kind(
        "question-alone",
        "warning",
        "Records ask and have no answer",
        "nothing, where they are only asked (eval, control); write the answers to train",
    ),
    Kind("answer-is-id", "warning", "An answer is the record's id", "is this a list of test ids? write the answers"),
    Kind(
        "placeholder-missing", "warning", "The one picture has no placeholder", "training and --fix put it first", True
    ),
    Kind("text-foreign", "warning", "A text holds another project's marks", "convert it with convert-data"),
    Kind(
        "text-damaged",
        "warning",
        "A text was damaged by a wrong encoding, or holds unseen characters",
        "write the text again from its source",
    ),
    Kind("text-digits", "warning", "A text has digits that are not ASCII", "write 0 to 9, if that was not meant"),
    Kind("media-size", "warning", "'width' and 'height' are not the picture's", _FIX, True),
    Kind(
        "media-gaps", "warning", "A folder of frames leaves numbers out", "bring the frames back, or number them anew"
    ),
    Kind("media-moves", "warning", "An animated picture under 'image'", "save it as GIF, and give it as 'video'"),
    Kind(
        "box-unit-doubt",
        "warning",
        "Boxes may be in another unit or size",
        "look at some with picture; convert them if they are",
    ),
    Kind("track-degenerate", "warning", "Boxes of a track have no area", "they read as absent; write zeros if meant"),
    Kind("track-outside", "warning", "Boxes of a track lie outside the picture", "mark these frames absent"),
    Kind("track-sparse", "warning", "A track may be key frames", "say 'interpolate': true or false"),
    Kind("track-absent", "warning", "A track is absent from first to last", "drop the record, or track again"),
]
KINDS = {kind.code: kind for kind in _ERRORS + _WARNINGS}
