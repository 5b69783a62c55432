"""Message lists of LLaMA-Factory (sharegpt and alpaca style) and ms-swift to records."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from internvl_chat.boxes import is_absent
from internvl_chat.constants import (
    IMAGE_PLACEHOLDER,
    REF_END,
    REF_START,
    VIDEO_PLACEHOLDER,
)
from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.checking.conversations import (
    FOREIGN_MARKS,
    box_row,
    break_after_video,
    renamed_turn,
    shortened,
)
from internvl_chat.data.converters.forms.collecting import converted_objects
from internvl_chat.data.media.sources import read_media_header
from internvl_chat.data.records.box_evidence import judged_thousandths
from internvl_chat.data.records.names import check_name
from internvl_chat.data.records.reader import SPEAKERS
from internvl_chat.grounding import box_text

# ms-swift's stand-ins for the entries of `objects`, used up from first to last.
_REF_MARK, _BOX_MARK = "<ref-object>", "<bbox>"
_BOX_UNITS = ("real", "norm1")
_OBJECT_KEYS = ("ref", "bbox", "bbox_type", "image_id")
# KTO's, by which an answer is one to avoid.
_JUDGED_KEYS = ("label", "kto_tag")
_PREFERENCE_KEYS = ("chosen", "rejected", "rejected_response", "rejected_messages")


@dataclass(frozen=True)
class _Message:
    """A message of another project's list, with our speaker's name."""

    speaker: str
    text: str

    def as_turn(self) -> dict[str, str]:
        return {"from": self.speaker, "value": self.text}


def llamafactory_records(source: Path, root: Path, faults: list[UserError] | None = None) -> Iterator[dict[str, Any]]:
    """Records of a LLaMA-Factory file: `conversations` or `messages`, or `instruction`, `input` and `output`.

    Raises:
        UserError: a record cannot be said in this project's form, such as one with tool calls or sound.
    """

    def last_pair(record: Mapping[str, Any]) -> list[Any] | None:
        if "instruction" not in record:
            return None
        question = "\n".join(str(record[key]) for key in ("instruction", "input") if record.get(key))
        return [question, record.get("output")]

    return _chat_records(source, root, last_pair, faults, fills_in=False)


def swift_records(source: Path, root: Path, faults: list[UserError] | None = None) -> Iterator[dict[str, Any]]:
    """Records of an ms-swift file: `messages`, or `query`, `response` and `history`; `objects` become box texts.

    Raises:
        UserError: a record cannot be said in this project's form, such as one with tool calls or sound.
    """

    def last_pair(record: Mapping[str, Any]) -> list[Any] | None:
        return [record["query"], record.get("response")] if "query" in record else None

    return _chat_records(source, root, last_pair, faults, fills_in=True)


def _chat_records(
    source: Path,
    root: Path,
    last_pair: Callable[[Mapping[str, Any]], list[Any] | None],
    faults: list[UserError] | None,
    fills_in: bool,
) -> Iterator[dict[str, Any]]:
    """Convert each record of a file.

    Args:
        last_pair: the question and answer of a record that holds them under keys of their own.
        fills_in: put placeholders first where there are files and no placeholder at all, as ms-swift does.
    """

    def convert(record: dict[str, Any], where: str, number: int) -> dict[str, Any]:
        if preference := [key for key in _PREFERENCE_KEYS if key in record]:
            raise UserError(f"{where}: has {preference[0]!r}: pairs of better and worse answers are not supported")
        if marked := [key for key in _JUDGED_KEYS if record.get(key) not in (None, True)]:
            raise UserError(
                f"{where}: has {marked[0]!r}: {shortened(record[marked[0]])}: an answer that is not to be learnt, or a "
                "class; expected answers to train on"
            )
        turns, pair = record.get("messages", record.get("conversations")), last_pair(record)
        if turns is None and pair is not None:
            turns = _from_pairs(record, pair, where)
        return _Chat(record, where, root).record(turns, f"{source.stem}-{number}", fills_in)

    yield from converted_objects(source, convert, faults)


def _from_pairs(record: Mapping[str, Any], last: list[Any], where: str) -> list[dict[str, Any]]:
    """The pairs of question and answer in `history`, and the last one, as turns."""
    pairs = [*_list_in(record, "history", where), last]
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise UserError(f"{where}: 'history' is {shortened(pairs[:-1])}: expected pairs of question and answer")
    return [{"from": who, "value": text} for pair in pairs for who, text in zip(("human", "gpt"), pair, strict=True)]


def _list_in(content: Mapping[str, Any], key: str, where: str) -> list[Any]:
    """The list under a key; an empty one where there is none."""
    value = content.get(key)
    if value is not None and not isinstance(value, list):
        raise UserError(f"{where}: {key!r} is {shortened(value)}: expected a list")
    return value or []


class _Chat:
    """One record being converted: its messages and files."""

    def __init__(self, content: Mapping[str, Any], where: str, root: Path) -> None:
        self.content, self.where, self.root = content, where, root
        self.files: dict[str, list[str]] = {
            IMAGE_PLACEHOLDER: [self._path(item) for item in self._listed("images", "image")],
            VIDEO_PLACEHOLDER: [self._path(item) for item in self._listed("videos", "video")],
        }
        if self._listed("audios", "audio"):
            raise UserError(f"{where}: has 'audios': sound is not supported")

    def record(self, turns: Any, sample_id: str, fills_in: bool) -> dict[str, Any]:
        """The record in this project's form; `sample_id` is its id where it has none."""
        if not isinstance(turns, list) or not turns:
            raise UserError(f"{self.where}: expected a list of messages, got the keys {sorted(self.content)}")
        messages = [self._message(turn) for turn in turns]
        system = self.content.get("system")
        if isinstance(system, str) and system and messages[0].speaker != "system":
            messages.insert(0, _Message("system", system))
        messages = self._with_objects(messages)
        for message in messages:
            if mark := FOREIGN_MARKS.search(message.text):
                raise UserError(f"{self.where}: {mark.group()!r} is left in the text: expected 'objects' to say it")
        images, videos = self.files[IMAGE_PLACEHOLDER], self.files[VIDEO_PLACEHOLDER]
        if len(videos) > 1 or (videos and images):
            raise UserError(
                f"{self.where}: shows {len(images)} images and {len(videos)} videos: expected images, or one video"
            )
        if fills_in and not any(p in m.text for p in self.files for m in messages if m.speaker == "human"):
            first = next((i for i, m in enumerate(messages) if m.speaker == "human"), 0)
            shown = "".join(f"{p}\n" * len(paths) for p, paths in self.files.items())
            messages[first] = _Message(messages[first].speaker, shown + messages[first].text)
        for placeholder, paths in self.files.items():
            count = sum(message.text.count(placeholder) for message in messages)
            if count != len(paths):
                raise UserError(
                    f"{self.where}: has {count} '{placeholder}' for {len(paths)} files: expected one a file"
                )
        given = self.content.get("id")
        record: dict[str, Any] = {"id": given if type(given) in (int, str) else sample_id}
        if images:
            record["image"] = images[0] if len(images) == 1 else images
        if videos:
            record["video"] = videos[0]
        record["conversations"] = [_Message(m.speaker, break_after_video(m.text)).as_turn() for m in messages]
        return record

    def _listed(self, *keys: str) -> list[Any]:
        """What stands under one of these keys, by which files are called in one dataset or another."""
        values = [self.content[key] for key in keys if self.content.get(key)]
        listed = [value if isinstance(value, list) else [value] for value in values]
        if any(items != listed[0] for items in listed):
            raise UserError(f"{self.where}: has {' and '.join(map(repr, keys))}: expected one of the two")
        return listed[0] if listed else []

    def _path(self, item: Any) -> str:
        """A file's path relative to the root."""
        name = item.get("path") if isinstance(item, dict) else item
        if not isinstance(name, str) or not name:
            raise UserError(f"{self.where}: a file is {shortened(item)}: expected its path")
        name = name.removeprefix("file://")
        path = PurePath(name)
        if path.is_absolute():
            root = os.path.abspath(self.root)
            if not path.is_relative_to(root):
                raise UserError(f"{self.where}: {name} does not lie under the root {self.root}: give another --root")
            return path.relative_to(root).as_posix()
        return name

    def _message(self, turn: Any) -> _Message:
        renamed = renamed_turn(turn) if isinstance(turn, dict) else {}
        speaker, text = renamed.get("from"), renamed.get("value")
        if isinstance(text, list):
            text = "".join(self._part(part) for part in text)
        if not isinstance(text, str):
            raise UserError(f"{self.where}: a message is {shortened(turn)}: expected a speaker and a text")
        if speaker == "gpt" and turn.get("loss") not in (None, True):
            raise UserError(
                f"{self.where}: a message has 'loss': {shortened(turn['loss'])}, which nobody would heed: all answers "
                "of a record are trained"
            )
        if speaker not in SPEAKERS:
            raise UserError(
                f"{self.where}: a message is from {shortened(speaker)}: expected a user, an assistant or the system; "
                "tool calls are not supported"
            )
        return _Message(str(speaker), text)

    def _part(self, part: Any) -> str:
        """A part of a message in OpenAI's form: a text, or a file that is shown at this place."""
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            return str(part["text"])
        for name, placeholder in (("image", IMAGE_PLACEHOLDER), ("video", VIDEO_PLACEHOLDER)):
            if kind in (name, f"{name}_url"):
                file = part.get(kind, part.get("path"))
                self.files[placeholder].append(self._path(file.get("url") if isinstance(file, dict) else file))
                return placeholder
        raise UserError(f"{self.where}: a message holds {shortened(part)}: expected text, image or video")

    def _with_objects(self, messages: list[_Message]) -> list[_Message]:
        """Messages with ms-swift's marks replaced by the names and boxes of `objects`."""
        objects = self.content.get("objects")
        if not objects:
            return messages
        if not isinstance(objects, dict):
            raise UserError(
                f"{self.where}: 'objects' is {shortened(objects)}: expected an object with 'ref' and 'bbox'"
            )
        if unknown := sorted(objects.keys() - set(_OBJECT_KEYS)):
            raise UserError(
                f"{self.where}: 'objects' has {', '.join(unknown)}, which nobody would heed: expected no more than "
                f"{', '.join(_OBJECT_KEYS)}, and boxes in pixels of the picture as it is shown"
            )
        refs = _list_in(objects, "ref", self.where)
        for name in refs:
            check_name(name, self.where)
        names = [f"{REF_START}{name}{REF_END}" for name in refs]
        boxes = self._box_texts(objects)
        marks = re.compile(f"{_REF_MARK}|{_BOX_MARK}")
        left = {_REF_MARK: iter(names), _BOX_MARK: iter(boxes)}
        written = []
        for message in messages:
            try:
                text = marks.sub(lambda match: next(left[match.group()]), message.text)
            except StopIteration as error:
                raise UserError(f"{self.where}: 'objects' has fewer entries than there are marks for them") from error
            written.append(_Message(message.speaker, text))
        surplus = {mark: sum(1 for _ in entries) for mark, entries in left.items()}
        if any(surplus.values()):
            raise UserError(
                f"{self.where}: 'objects' has {surplus[_REF_MARK]} names and {surplus[_BOX_MARK]} boxes more than the "
                f"messages have {_REF_MARK} and {_BOX_MARK}"
            )
        return written

    def _box_texts(self, objects: Mapping[str, Any]) -> list[str]:
        rows = [box_row(row) for row in _list_in(objects, "bbox", self.where)]
        unit = objects.get("bbox_type", "real")
        pictures = _list_in(objects, "image_id", self.where) or [0] * len(rows)
        if None in rows or unit not in _BOX_UNITS or len(pictures) != len(rows):
            raise UserError(
                f"{self.where}: 'objects' is {shortened(objects)}: expected boxes of four numbers, "
                f"'bbox_type' {' or '.join(_BOX_UNITS)}, and an 'image_id' a box"
            )
        texts = []
        for row, picture in zip(rows, pictures, strict=True):
            size = (1, 1) if unit == "norm1" else self._size_px(picture)
            corners = np.array(row)
            if is_absent(corners):
                raise UserError(f"{self.where}: the box {shortened(row)} has no area: expected x1 < x2 and y1 < y2")
            box = judged_thousandths(corners.tolist(), size, self.where)
            if is_absent(box):
                raise UserError(
                    f"{self.where}: the box {shortened(row)} lies outside the picture of {size[0]} x {size[1]}"
                )
            texts.append(box_text([box.tolist()]))
        return texts

    def _size_px(self, picture: Any) -> tuple[int, int]:
        images = self.files[IMAGE_PLACEHOLDER]
        if type(picture) is not int or not 0 <= picture < len(images):
            raise UserError(f"{self.where}: 'image_id' is {shortened(picture)}: expected a number below {len(images)}")
        shown = Sample("", (), self.where, image_paths=(self.root / images[picture],))
        return read_media_header(shown).sizes_px[0]
