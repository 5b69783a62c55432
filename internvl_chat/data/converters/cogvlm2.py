"""CogVLM2's fine-tuning folders: `images/` or `videos/`, and `labels/` with a file of the same name each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from internvl_chat.constants import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER, VIDEO_SUFFIXES
from internvl_chat.contracts import UserError
from internvl_chat.data.checking.conversations import shortened
from internvl_chat.data.converters.forms.collecting import converted
from internvl_chat.data.converters.forms.conversion import Conversion
from internvl_chat.data.converters.forms.video_chats import relative_name, turn_of
from internvl_chat.data.media.pictures import PICTURE_SUFFIXES
from internvl_chat.files import parse_json, read_text

# The folders of media, what is in them, and what stands for it in a question.
_MEDIA = {
    "images": ("image", PICTURE_SUFFIXES, IMAGE_PLACEHOLDER),
    "videos": ("video", VIDEO_SUFFIXES, VIDEO_PLACEHOLDER),
}


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """A record a label, in the order of their names: its `conversations` of `role` and `content`, media first.

    Raises:
        UserError: the folder has no labels, labels in several languages, or no folder of media.
    """
    folders = [source / name for name in _MEDIA if (source / name).is_dir()]
    if not folders:
        raise UserError(f"{source}: expected a folder images or videos in it")
    labels = sorted(folder for folder in source.glob("labels*") if folder.is_dir())
    if len(labels) != 1:
        found = ", ".join(folder.name for folder in labels) or "none"
        raise UserError(f"{source}: expected one folder labels, or labels_en, in it, found {found}")
    files = sorted(labels[0].glob("*.json"))
    if not files:
        raise UserError(f"{labels[0]}: holds no .json files")
    media: dict[str, list[Path]] = {}
    for path in (path for folder in folders for path in sorted(folder.iterdir()) if _kind(path)):
        media.setdefault(path.stem, []).append(path)

    def record(label: Path) -> list[dict[str, Any]]:
        return [_record(label, media.get(label.stem, []), options)]

    yield from converted(files, record, options.faults)


def _kind(path: Path) -> str | None:
    """Under which key a record has a file; None for what is neither picture nor video."""
    key, suffixes, _ = _MEDIA[path.parent.name]
    return key if path.suffix.lower() in suffixes else None


def _record(label: Path, called: list[Path], options: Conversion) -> dict[str, Any]:
    if not called:
        raise UserError(f"{label}: there is no picture and no video of this name")
    if len(called) > 1:
        found = " or ".join(map(str, called))
        raise UserError(f"{label}: may be of {found}: expected one picture or video of its name")
    (media,) = called
    content = parse_json(read_text(label), str(label))
    said = content.get("conversations") if isinstance(content, dict) else None
    if not isinstance(said, list) or not said:
        raise UserError(f"{label}: is {shortened(content)}: expected 'conversations', a list of 'role' and 'content'")
    turns = [turn_of(turn, str(label)) for turn in said]
    key, _, placeholder = _MEDIA[media.parent.name]
    first = next((turn for turn in turns if turn["from"] == "human"), turns[0])
    first["value"] = f"{placeholder}\n{first['value']}"
    name = relative_name(str(media.absolute()), options.root, str(label))
    return {"id": label.stem, key: name, "conversations": turns}
