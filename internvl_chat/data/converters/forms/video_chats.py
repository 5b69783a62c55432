"""Chats about a video each: LLaVA and Video-ChatGPT, ShareGemini, and VideoInstruct; read, and written back."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from internvl_chat.constants import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER, VIDEO_SUFFIXES
from internvl_chat.contracts import UserError
from internvl_chat.data.checking.conversations import break_after_video, renamed_turn, shortened
from internvl_chat.data.converters.forms.collecting import converted_objects

_DEFAULT_SUFFIX = ".mp4"
_LLAVA_KEYS = ("id", "video", "image", "conversations")


def llava_records(source: Path, root: Path, faults: list[UserError] | None = None) -> Iterator[dict[str, Any]]:
    """Records of LLaVA's and Video-ChatGPT's files: `id`, `video` or `image`, `conversations` of `from` and `value`.

    Args:
        faults: gets what is wrong with records, which are left out; None lets the first such fault rise. So below.
    Raises:
        UserError: a record is not of this form, or a file lies outside the root.
    """

    def convert(record: dict[str, Any], where: str, number: int) -> dict[str, Any]:
        media = {key: value for key in ("video", "image") if (value := _media(record, key, root, where))}
        sample_id = record.get("id")
        named = {"id": sample_id if type(sample_id) in (int, str) else f"{source.stem}-{number}"}
        return {**named, **media, "conversations": turns_of(record, where)}

    yield from converted_objects(source, convert, faults)


def sharegemini_records(source: Path, root: Path, faults: list[UserError] | None = None) -> Iterator[dict[str, Any]]:
    """Records of ShareGemini's files: `video_id` (or `video`) without a suffix, `conversations` without placeholders.

    Raises:
        UserError: a record is not of this form, or a file lies outside the root.
    """
    counts: Counter[str] = Counter()

    def convert(record: dict[str, Any], where: str, _: int) -> dict[str, Any]:
        name = record.get("video_id", record.get("video"))
        turns = turns_of(record, where)
        if not any(VIDEO_PLACEHOLDER in turn["value"] for turn in turns):
            turns[0]["value"] = f"{VIDEO_PLACEHOLDER}\n{turns[0]['value']}"
        return {"id": _numbered(name, counts), "video": _video_named(name, root, where), "conversations": turns}

    yield from converted_objects(source, convert, faults)


def videoinstruct_records(source: Path, root: Path, faults: list[UserError] | None = None) -> Iterator[dict[str, Any]]:
    """Records of VideoInstruct's files: `q`, `a` and `video_id`.

    Raises:
        UserError: a record is not of this form, or a file lies outside the root.
    """
    counts: Counter[str] = Counter()

    def convert(record: dict[str, Any], where: str, _: int) -> dict[str, Any]:
        asked, answer, name = (record.get(key) for key in ("q", "a", "video_id"))
        if not isinstance(asked, str) or not isinstance(answer, str):
            raise UserError(f"{where}: is {shortened(record)}: expected 'q', 'a' and 'video_id'")
        turns = [{"from": "human", "value": f"{VIDEO_PLACEHOLDER}\n{asked}"}, {"from": "gpt", "value": answer}]
        return {"id": _numbered(name, counts), "video": _video_named(name, root, where), "conversations": turns}

    yield from converted_objects(source, convert, faults)


def to_llava(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A record of this project as LLaVA has it: the same keys, no tracks and no clip, and a placeholder a picture."""
    said = {key: value for key, value in _plain(record, where).items() if key in _LLAVA_KEYS}
    if isinstance(said.get("image"), str):
        asked = [turn for turn in said["conversations"] if turn["from"] == "human"]
        if asked and not any(IMAGE_PLACEHOLDER in turn["value"] for turn in asked):
            first = {**asked[0], "value": f"{IMAGE_PLACEHOLDER}\n{asked[0]['value']}"}
            said["conversations"] = [first if turn is asked[0] else turn for turn in said["conversations"]]
    return said


def to_sharegemini(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A record about a video as ShareGemini has it."""
    turns = [{**turn, "value": turn["value"].replace(f"{VIDEO_PLACEHOLDER}\n", "")} for turn in record["conversations"]]
    return {"video_id": _video_id(_plain(record, where), where), "conversations": turns}


def to_videoinstruct(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A record of one question about a video as VideoInstruct has it.

    Raises:
        UserError: it holds more than one question and its answer.
    """
    name = _video_id(_plain(record, where), where)
    turns = record["conversations"]
    if [turn["from"] for turn in turns] != ["human", "gpt"]:
        raise UserError(f"{where}: has {len(turns)} turns: VideoInstruct holds one question and its answer")
    return {"q": turns[0]["value"].replace(f"{VIDEO_PLACEHOLDER}\n", ""), "a": turns[1]["value"], "video_id": name}


def relative_name(name: Any, root: Path, where: str) -> str:
    """A file's path relative to the root, whatever it is relative to in the source.

    Raises:
        UserError: it is no path, or lies outside the root.
    """
    if not isinstance(name, str) or not name:
        raise UserError(f"{where}: a file is {shortened(name)}: expected its path")
    path, folder = PurePath(name.removeprefix("file://")), os.path.abspath(root)
    if not path.is_absolute():
        return path.as_posix()
    if not path.is_relative_to(folder):
        raise UserError(f"{where}: {name} does not lie under the root {root}: give another --root")
    return path.relative_to(folder).as_posix()


def turns_of(record: Mapping[str, Any], where: str) -> list[dict[str, str]]:
    """The turns of a record's `conversations`.

    Raises:
        UserError: there are none, or one is not of this form.
    """
    return [turn_of(turn, where) for turn in _list(record, "conversations", where)]


def _media(record: Mapping[str, Any], key: str, root: Path, where: str) -> str | list[str] | None:
    """What stands under a key, or its plural; None where nothing does.

    Raises:
        UserError: both are there, or there are several videos, or a file is no path under the root.
    """
    found = [record[name] for name in (key, f"{key}s") if record.get(name)]
    if len({str(value if isinstance(value, list) else [value]) for value in found}) > 1:
        raise UserError(f"{where}: has {key!r} and '{key}s': expected one of the two")
    if not found:
        return None
    if not isinstance(found[0], list):
        return relative_name(found[0], root, where)
    names = [relative_name(name, root, where) for name in found[0]]
    if key == "video" and len(names) > 1:
        raise UserError(f"{where}: shows {len(names)} videos: expected one")
    return names[0] if len(names) == 1 else names


def _list(record: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = record.get(key)
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: {key!r} is {shortened(value)}: expected a list of turns")
    return value


def turn_of(turn: Any, where: str) -> dict[str, str]:
    """A turn of another project's chat as this project has it.

    Raises:
        UserError: it has no speaker or no text.
    """
    renamed = renamed_turn(turn) if isinstance(turn, dict) else {}
    speaker, text = renamed.get("from"), renamed.get("value")
    if not isinstance(speaker, str) or not isinstance(text, str):
        raise UserError(f"{where}: a turn is {shortened(turn)}: expected 'from' and 'value'")
    return {"from": speaker, "value": break_after_video(text)}


def _numbered(name: Any, counts: Counter[str]) -> str:
    """An id for the next record about a video."""
    counts[str(name)] += 1
    return f"{name}-{counts[str(name)] - 1}"


def _video_named(name: Any, root: Path, where: str) -> str:
    """The video that an id means: a folder of frames, or a file with a suffix of videos."""
    path = relative_name(name, root, where)
    if PurePath(path).suffix.lower() in VIDEO_SUFFIXES or (root / path).exists():
        return path
    there = [f"{path}{suffix}" for suffix in sorted(VIDEO_SUFFIXES) if (root / f"{path}{suffix}").is_file()]
    if len(there) > 1:
        raise UserError(f"{where}: {path!r} may be {' or '.join(there)}: expected one video of this name")
    return there[0] if there else f"{path}{_DEFAULT_SUFFIX}"


def _video_id(record: Mapping[str, Any], where: str) -> str:
    if "video" not in record:
        raise UserError(f"{where}: shows no video, as this format's records do")
    path = PurePath(record["video"])
    return (path.with_suffix("") if path.suffix.lower() in VIDEO_SUFFIXES else path).as_posix()


def _plain(record: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The record, which has nothing that other projects cannot say."""
    for key in ("tracks", "clip"):
        if key in record:
            raise UserError(f"{where}: has {key!r}, which the other format cannot say: leave the record out")
    return record
