"""Chats about several images: MiniCPM-V's numbered images and Idefics3's message parts; read, and written back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from internvl_chat.constants import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from internvl_chat.contracts import UserError
from internvl_chat.data.checking.conversations import shortened
from internvl_chat.data.converters.forms.collecting import converted_objects
from internvl_chat.data.converters.forms.described import whole_number_of
from internvl_chat.data.converters.forms.video_chats import relative_name
from internvl_chat.data.media.sources import frame_files

_NUMBERED = re.compile(r"<image_([0-9]+)>")
_ROLES = {"user": "human", "assistant": "gpt", "system": "system"}
_SPEAKERS = {speaker: role for role, speaker in _ROLES.items()}


@dataclass(frozen=True)
class FramesShown:
    """How a folder of frames is written as images.

    Args:
        root: what paths of records are relative to.
        num_frames: most frames of a video, spread over it; None shows all.
    """

    root: Path
    num_frames: int | None = None


def minicpmv_records(source: Path, root: Path, faults: list[UserError] | None = None) -> Iterator[dict[str, Any]]:
    """Records of MiniCPM-V's files: `image`, a path or `{"<image_00>": path, ...}`, and `conversations`.

    Images come in the order in which the text names them, whatever the digits of their numbers; those that it does not
    name stand before the first question, by number.

    Args:
        faults: gets what is wrong with records, which are left out; None lets the first such fault rise. So below.
    Raises:
        UserError: a record is not of this form, or the text names an image that is not there.
    """

    def convert(record: dict[str, Any], where: str, number: int) -> dict[str, Any]:
        turns = _messages(record.get("conversations"), where)
        given = record.get("image", {})
        files = {"": given} if isinstance(given, str) else given
        if not isinstance(files, dict):
            raise UserError(f"{where}: 'image' is {shortened(given)}: expected a path or numbered paths")
        numbers = {_number_of(key, where): relative_name(name, root, where) for key, name in files.items()}
        named = [_number(n, where) for turn in turns for n in _NUMBERED.findall(turn["value"])]
        for absent in sorted(set(named) - numbers.keys()):
            raise UserError(f"{where}: the text shows image {absent}, which 'image' does not hold")
        plain = sum(turn["value"].count(IMAGE_PLACEHOLDER) for turn in turns)
        unnamed = sorted(numbers.keys() - set(named))
        turns = [{**turn, "value": _NUMBERED.sub(IMAGE_PLACEHOLDER, turn["value"])} for turn in turns]
        if unnamed and not plain:
            first = next((turn for turn in turns if turn["from"] == "human"), turns[0])
            first["value"] = f"{IMAGE_PLACEHOLDER}\n" * len(unnamed) + first["value"]
        return _record(record, f"{source.stem}-{number}", [numbers[k] for k in [*unnamed, *named]], turns)

    yield from converted_objects(source, convert, faults)


def idefics3_records(source: Path, root: Path, faults: list[UserError] | None = None) -> Iterator[dict[str, Any]]:
    """Records of Idefics3's chats: `images`, and `messages` whose content is a list of texts and images.

    Raises:
        UserError: a record is not of this form, or the numbers of images disagree.
    """

    def convert(record: dict[str, Any], where: str, number: int) -> dict[str, Any]:
        images = record.get("images", [])
        turns, count = [], 0
        for message in _list(record.get("messages"), where):
            content = message.get("content") if isinstance(message, dict) else None
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            texts = [_part_text(part, where) for part in _list(parts, where)]
            count += texts.count(IMAGE_PLACEHOLDER)
            turns.append({"from": _speaker(message, where), "value": "".join(texts)})
        if not isinstance(images, list) or len(images) != count:
            raise UserError(f"{where}: 'images' is {shortened(images)}: expected {count} paths, one an image part")
        files = [relative_name(name, root, where) for name in images]
        return _record(record, f"{source.stem}-{number}", files, turns)

    yield from converted_objects(source, convert, faults)


def to_minicpmv(record: Mapping[str, Any], where: str, shown: FramesShown) -> dict[str, Any]:
    """A record as MiniCPM-V has it: images numbered with as many digits as the last one, at least two."""
    images, turns = images_and_turns(record, where, shown)
    digits = max(2, len(str(len(images) - 1)))
    names = iter(f"<image_{number:0{digits}d}>" for number in range(len(images)))
    messages = [
        {"role": _SPEAKERS[turn["from"]], "content": re.sub(IMAGE_PLACEHOLDER, lambda _: next(names), turn["value"])}
        for turn in turns
    ]
    numbered = {f"<image_{number:0{digits}d}>": file for number, file in enumerate(images)}
    return {"id": record["id"], **({"image": numbered} if numbered else {}), "conversations": messages}


def to_idefics3(record: Mapping[str, Any], where: str, shown: FramesShown) -> dict[str, Any]:
    """A record as Idefics3's chats have it."""
    images, turns = images_and_turns(record, where, shown)
    messages = []
    for turn in turns:
        texts = re.split(f"({IMAGE_PLACEHOLDER})", turn["value"])
        parts = [{"type": "image"} if text == IMAGE_PLACEHOLDER else {"type": "text", "text": text} for text in texts]
        messages.append({"role": _SPEAKERS[turn["from"]], "content": [part for part in parts if part.get("text", "x")]})
    return {"id": record["id"], "images": images, "messages": messages}


def spread_frames(total: int, count: int) -> list[int]:
    """The middle frames of `count` equal spans of a video; all where it has no more.

    Source: Video-ChatGPT, whose rule T2Vid takes.
    """
    if total <= count:
        return list(range(total))
    bounds = np.round((total - 1) / count * np.arange(count + 1)).astype(int)
    return ((bounds[:-1] + bounds[1:]) // 2).tolist()


def images_and_turns(
    record: Mapping[str, Any], where: str, shown: FramesShown
) -> tuple[list[str], Sequence[Mapping[str, str]]]:
    """The images of a record and its turns with an `<image>` each; a folder of frames becomes its frames, in order.

    Raises:
        UserError: it has a track or a clip, shows a video that is no folder of frames, or has other placeholders than
            one an image, or one `<video>` with a line break behind it.
    """
    if "tracks" in record or "clip" in record:
        raise UserError(f"{where}: has a track or a clip, which the other format cannot say: leave the record out")
    turns = record["conversations"]
    if "video" in record:
        folder = shown.root / record["video"]
        if not folder.is_dir():
            raise UserError(f"{where}: {folder} is no folder of frames: extract-frames makes one")
        files = [file.relative_to(shown.root).as_posix() for file in frame_files(folder)]
        files = [files[i] for i in spread_frames(len(files), shown.num_frames or len(files))]
        lines = f"{IMAGE_PLACEHOLDER}\n" * len(files)
        turns = [{**turn, "value": turn["value"].replace(f"{VIDEO_PLACEHOLDER}\n", lines)} for turn in turns]
    else:
        given = record.get("image", [])
        files = [given] if isinstance(given, str) else list(given)
    text = "".join(turn["value"] for turn in turns)
    if VIDEO_PLACEHOLDER in text or text.count(IMAGE_PLACEHOLDER) != len(files):
        raise UserError(
            f"{where}: its {len(files)} images have {text.count(IMAGE_PLACEHOLDER)} places in the text: expected "
            + ("one <video>, with a line break behind it" if "video" in record else "one <image> each")
        )
    return files, turns


def _record(record: Mapping[str, Any], sample_id: str, images: list[str], turns: Any) -> dict[str, Any]:
    given = record.get("id")
    shown = {"image": images[0] if len(images) == 1 else images} if images else {}
    return {"id": given if type(given) in (int, str) else sample_id, **shown, "conversations": turns}


def _messages(messages: Any, where: str) -> list[dict[str, str]]:
    turns = []
    for message in _list(messages, where):
        text = message.get("content") if isinstance(message, dict) else None
        if not isinstance(text, str):
            raise UserError(f"{where}: a message is {shortened(message)}: expected 'role' and 'content'")
        turns.append({"from": _speaker(message, where), "value": text})
    return turns


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: has {shortened(value)}: expected a list of messages")
    return value


def _speaker(message: Any, where: str) -> str:
    role = message.get("role") if isinstance(message, dict) else None
    if role not in _ROLES:
        raise UserError(f"{where}: a message is {shortened(message)}: expected a role of {', '.join(_ROLES)}")
    return _ROLES[role]


def _number_of(key: Any, where: str) -> int:
    """`<image_07>` is 7; the only image of a record has no number."""
    match = _NUMBERED.fullmatch(key) if key else None
    if key and match is None:
        raise UserError(f"{where}: 'image' holds the key {shortened(key)}: expected <image_00>, <image_01>, ...")
    return _number(match[1], where) if match else 0


def _number(digits: str, where: str) -> int:
    number = whole_number_of(digits)
    if number is None:
        raise UserError(f"{where}: an image's number has {len(digits)} digits: expected <image_00>, <image_01>, ...")
    return number


def _part_text(part: Any, where: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "image":
        return IMAGE_PLACEHOLDER
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise UserError(f"{where}: a message holds {shortened(part)}: expected text or image parts")
