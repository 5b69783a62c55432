"""Names as data gives them: those of objects that cannot stand in a prompt, and those of keys that are misspelt."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Mapping
from typing import Any

from internvl_chat.constants import IMAGE_PLACEHOLDER, SPECIAL_TOKENS, VIDEO_PLACEHOLDER
from internvl_chat.contracts import UserError

# What the prompt calls an object of which nobody says.
DEFAULT_NAME = "object"

# Every key of a record that is read.
RECORD_KEYS = ("id", "conversations", "image", "video", "clip", "features", "tracks", "width", "height")

# Longer than any name; a whole text under 'name' is a slip of the export.
MAX_NAME_CHARS = 200

# `<|im_end|>` and its like, of whichever chat.
_CHAT_TOKEN = re.compile(
    r"<\|[a-z0-9_]+\|>|</?s>|<(?:bos|eos|pad|unk|mask|(?:start|end)_of_turn)>|\[/?INST\]|<</?SYS>>|<0x[0-9A-F]{2}>"
)
# Joiners of letters and emoji (U+200C, U+200D) and marks of direction are written; these others only ever slip in:
# soft hyphens, zero-width spaces, byte order marks, and overrides that show a name in another order.
INVISIBLE = "\u00ad\u200b\u2060-\u2064\ufeff\u202a-\u202e\u2066-\u2069"
_NOT_PRINTED = re.compile(rf"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{INVISIBLE}]")


def check_name(name: Any, source: str) -> str:
    """The name, if it can stand in a prompt.

    Raises:
        UserError: it is empty, too long, or holds line breaks, unseen characters, placeholders or tokens that steer the
            chat.
    """
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"{source}: the name {reprlib.repr(name)} is empty: expected what the object is called")
    if len(name) > MAX_NAME_CHARS:
        raise UserError(f"{source}: the name {name[:40]!r}... has {len(name)} characters, at most {MAX_NAME_CHARS}")
    if broken := _NOT_PRINTED.search(name):
        raise UserError(f"{source}: the name {name!a} holds U+{ord(broken.group()):04X}: expected one line of text")
    tokens = [token for token in (IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER, *SPECIAL_TOKENS) if token in name]
    if match := _CHAT_TOKEN.search(name):
        tokens.append(match.group())
    if tokens:
        raise UserError(f"{source}: the name {name!r} holds {tokens[0]}, which would steer the prompt: rename it")
    return name


def misspelt_keys(record: Mapping[str, Any]) -> dict[str, str]:
    """The keys of a record that nothing reads, each with the key that was probably meant and is not there."""
    unread = sorted(record.keys() - {*RECORD_KEYS})
    meant = {key: difflib.get_close_matches(key, RECORD_KEYS, n=1, cutoff=0.75) for key in unread}
    return {key: words[0] for key, words in meant.items() if words and words[0] not in record}


def misspelt_media(record: Mapping[str, Any]) -> tuple[str, str] | None:
    """The misspelt key of the picture or video that a record's questions have a place for, and the right one.

    None where a file is named, or none is spoken of.
    """
    if "image" in record or "video" in record:
        return None
    places = {"image": IMAGE_PLACEHOLDER, "video": VIDEO_PLACEHOLDER}
    said = str(record.get("conversations"))
    return next(((key, meant) for key, meant in misspelt_keys(record).items() if places.get(meant, "\0") in said), None)


def check_media_keys(record: Mapping[str, Any], source: str) -> None:
    """See to it that a record names one picture or video, or none because it means none.

    Raises:
        UserError: it names both, or the key is misspelt.
    """
    if "image" in record and "video" in record:
        raise UserError(f"{source}: has 'image' and 'video': expected one of them, or neither")
    if slip := misspelt_media(record):
        raise UserError(f"{source}: the record has the key {slip[0]!r}: expected {slip[1]!r}")
