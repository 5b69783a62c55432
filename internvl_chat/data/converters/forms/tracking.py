"""LaSOT and GOT-10k folders to records with the target's track; what marks the target as absent is kept."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from internvl_chat.boxes import parse_box_text
from internvl_chat.constants import VIDEO_PLACEHOLDER
from internvl_chat.contracts import UserError
from internvl_chat.data.converters.forms.collecting import converted
from internvl_chat.data.media.sources import frame_files
from internvl_chat.data.prompts.wordings import question_about
from internvl_chat.data.records.intentvc import category_of, object_name_of
from internvl_chat.files import read_text

TRACK_NAME = "groundtruth.txt"


@dataclass(frozen=True)
class Question:
    """What is asked of each sequence, and the answers where the folders hold none.

    Args:
        controls: those that the question speaks of, a key of `WORDINGS`.
        captions: sequence name -> answers; they come before what the folder says.
    """

    controls: frozenset[str]
    captions: Mapping[str, Sequence[str]]


def lasot_records(
    source: Path, root: Path, question: Question, faults: list[UserError] | None = None
) -> Iterator[dict[str, Any]]:
    """A record an answer for each `<class>/<class-n>`: frames in `img/`, or the video `<class-n>.mp4`.

    A frame is absent if `full_occlusion.txt` or `out_of_view.txt` marks it, or its box is NaN; `nlp.txt` is the answer.

    Args:
        faults: gets what is wrong with sequences, which are left out; None lets the first such fault rise.
    Raises:
        UserError: no sequence found, or its files disagree about the number of frames.
    """

    def convert(folder: Path) -> Iterator[dict[str, Any]]:
        category = category_of(folder.name)
        marks = [label_flags(folder / name) for name in ("full_occlusion.txt", "out_of_view.txt")]
        video = folder / f"{folder.name}.mp4"
        shown = video if video.is_file() else folder / "img"
        answers = question.captions.get(folder.name) or _own_answer(folder / "nlp.txt")
        yield from _records(folder, root, shown, object_name_of(category), marks, answers, question.controls)

    yield from converted(_sequences(source), convert, faults)


def got10k_records(
    source: Path, root: Path, question: Question, faults: list[UserError] | None = None
) -> Iterator[dict[str, Any]]:
    """A record an answer for each sequence folder of frames; `absence.label` marks the frames without the target.

    The answer is the class and the motion that `meta_info.ini` names.

    Args:
        faults: gets what is wrong with sequences, which are left out; None lets the first such fault rise.
    Raises:
        UserError: no sequence found, or its files disagree about the number of frames.
    """

    def convert(folder: Path) -> Iterator[dict[str, Any]]:
        about = _meta_info(folder / "meta_info.ini")
        name = about.get("object_class", "object")
        own = [f"{name} {about['motion_class']}"] if about.get("motion_class") else []
        answers = question.captions.get(folder.name) or own
        yield from _records(
            folder, root, folder, name, [label_flags(folder / "absence.label")], answers, question.controls
        )

    yield from converted(_sequences(source), convert, faults)


def _sequences(source: Path) -> list[Path]:
    """The folders that hold a track, one or two levels down."""
    if not source.is_dir():
        raise UserError(f"{source}: is no folder; give the dataset's folder")
    found = sorted({path.parent for pattern in ("*", "*/*") for path in source.glob(f"{pattern}/{TRACK_NAME}")})
    if not found:
        raise UserError(f"{source}: holds no sequence with a {TRACK_NAME}; is it the dataset's folder?")
    return found


def label_flags(path: Path) -> list[bool]:
    """The 0 and 1 of a label file, a frame each, separated by commas or white space; none if there is no file.

    Raises:
        UserError: the file is empty, or holds something else.
    """
    if not path.is_file():
        return []
    flags = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        for word in re.split(r"[,\s]+", line.strip()):
            if word not in ("", "0", "1"):
                raise UserError(f"{path}:{number}: holds {word[:20]!r}: expected 0 or 1")
            flags += [word == "1"] if word else []
    if not flags:
        raise UserError(f"{path}: is empty: expected 0 or 1 a frame, or no such file where nothing is marked")
    return flags


def _own_answer(path: Path) -> list[str]:
    text = " ".join(read_text(path).split()) if path.is_file() else ""
    return [text] if text else []


def _meta_info(path: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(read_text(path) if path.is_file() else "")
    except configparser.Error as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    return {key: text.replace("_", " ").strip() for section in parser.sections() for key, text in parser.items(section)}


def _records(
    folder: Path,
    root: Path,
    shown: Path,
    name: str,
    marks: Sequence[Sequence[bool]],
    answers: Sequence[str],
    controls: frozenset[str],
) -> Iterator[dict[str, Any]]:
    path = folder / TRACK_NAME
    boxes = parse_box_text(path, nan_is_absent=True)
    if shown.is_dir() and (num_frames := len(frame_files(shown))) != len(boxes):
        raise UserError(f"{path}: has {len(boxes)} lines for the {num_frames} frames of {shown}: expected one a frame")
    if not shown.is_relative_to(root):
        raise UserError(f"{shown}: does not lie under the root {root}: give another --root")
    if not answers:
        raise UserError(f"{folder}: has no text to learn; give --captions with {folder.name!r}")
    absent = np.zeros(len(boxes), dtype=bool)
    for flags in marks:
        if flags and len(flags) != len(boxes):
            raise UserError(f"{folder}: has {len(flags)} absence labels for {len(boxes)} boxes: expected one a frame")
        absent |= np.array(flags or [False] * len(boxes))
    track = {
        "name": name,
        "boxes": [[_plain(v) for v in row] for row in boxes.tolist()],
        "by": "frame",
        "unit": "pixels",
        "order": "xywh",
        "absent": np.flatnonzero(absent).tolist(),
    }
    for number, answer in enumerate(answers):
        yield {
            "id": f"{folder.name}-{number}",
            "video": shown.relative_to(root).as_posix(),
            "tracks": [track],
            "conversations": [
                {"from": "human", "value": f"{VIDEO_PLACEHOLDER}\n{question_about(name, controls)}"},
                {"from": "gpt", "value": answer},
            ],
        }


def _plain(value: float) -> float | int:
    return int(value) if value.is_integer() else value
