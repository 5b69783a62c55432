"""The lists of Artemis' three stages: chats about pictures, videos or nothing, and objects followed through a video."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from internvl_chat.constants import FEATURES_SUFFIX, IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from internvl_chat.contracts import UserError
from internvl_chat.data.converters.forms.conversion import Conversion
from internvl_chat.data.converters.forms.described import Faults, path_under, records_of
from internvl_chat.data.converters.forms.followed import entries_of_lists, followed
from internvl_chat.data.converters.forms.video_chats import relative_name, turns_of
from internvl_chat.data.prompts.object_questions import FIXED_QUESTION, drawn_question
from internvl_chat.files import parse_json

_PLACEHOLDERS = (VIDEO_PLACEHOLDER, IMAGE_PLACEHOLDER)


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """A record an entry of a list, or of all lists of a folder; each entry's keys tell its stage.

    Of stage 3 everything is asked alike, in the fixed form, unless questions are drawn by a seed: then a list's own
    question is asked where it has one. Features of a video stand where the list has its `.pkl`, converted.

    Raises:
        UserError: all entries that cannot be used, by line.
    """
    faults = Faults(options.faults)
    found: list[dict[str, Any]] = []
    for text, name, where in entries_of_lists(source):
        with faults.gathered():
            entry = parse_json(text, where)
            if isinstance(entry, dict) and "track_list" in entry:
                found += _about_an_object(entry, name, options, where)
            else:
                found.append(_chat(entry, name, options.root, where))
    faults.tell()
    yield from found


def _about_an_object(entry: dict[str, Any], name: str, options: Conversion, where: str) -> list[dict[str, Any]]:
    described = followed(entry, name, options.root, where)
    made = list(records_of([described], options.root, options.question, Faults()))
    features = _features(entry.get("clip_path"), options.root, where)
    for record in made:
        asked = FIXED_QUESTION
        if options.question_seed is not None:
            own = entry.get("question")
            forms = (own,) if isinstance(own, str) and own.strip() else options.question_forms
            asked = drawn_question(str(record["id"]), options.question_seed, forms)
        record["conversations"][0]["value"] = f"{VIDEO_PLACEHOLDER}\n{asked}"
        record |= {"features": features} if features else {}
    return made


def _chat(entry: Any, name: str, root: Path, where: str) -> dict[str, Any]:
    """A chat with the placeholders of each turn in front of it, the video's first."""
    if not isinstance(entry, dict):
        raise UserError(f"{where}: is {entry!r:.80}: expected an object")
    images, video = entry.get("image") or [], entry.get("video") or entry.get("video_clip")
    if images and video:
        raise UserError(f"{where}: shows images and a video: expected one of the two")
    turns = [_with_placeholders_in_front(turn) for turn in turns_of(entry, where)]
    record: dict[str, Any] = {"id": entry["id"] if type(entry.get("id")) in (int, str) else name}
    if images:
        names = [relative_name(image, root, where) for image in (images if isinstance(images, list) else [images])]
        record["image"] = names[0] if len(names) == 1 else names
    if video:
        record |= _video(entry, root, where)
    shown = IMAGE_PLACEHOLDER if images else VIDEO_PLACEHOLDER
    if (images or video) and not any(shown in turn["value"] for turn in turns):
        count = len(names) if images else 1
        turns[0]["value"] = f"{shown}\n" * count + turns[0]["value"]
    return {**record, "conversations": turns}


def _video(entry: Mapping[str, Any], root: Path, where: str) -> dict[str, str]:
    """The video where it is there, its features where they are; features alone are given as the video."""
    features = _features(entry.get("video_clip"), root, where)
    video = relative_name(entry["video"], root, where) if entry.get("video") else ""
    if video and (root / video).exists():
        return {"video": video, "features": features} if features else {"video": video}
    if not features:
        raise UserError(
            f"{where}: neither its video {video!r} nor features of it are there; make them of the original's pickles "
            "with 'extract-features --pickles'"
        )
    return {"video": features}


def _features(name: Any, root: Path, where: str) -> str:
    """The file of converted features beside, or in place of, a list's pickle; empty where there is none."""
    if not name:
        return ""
    path = path_under(root, name, where).with_suffix(FEATURES_SUFFIX)
    return path.relative_to(root).as_posix() if path.is_file() else ""


def _with_placeholders_in_front(turn: dict[str, str]) -> dict[str, str]:
    text = turn["value"]
    front = "".join(f"{placeholder}\n" * text.count(placeholder) for placeholder in _PLACEHOLDERS)
    for placeholder in _PLACEHOLDERS:
        text = text.replace(placeholder, "")
    return {**turn, "value": front + text.strip()} if front else turn
