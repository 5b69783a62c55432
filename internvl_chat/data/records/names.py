"""Names of objects and datasets as data gives them: what cannot stand in a prompt is refused, here and everywhere."""

from __future__ import annotations

import re
import reprlib
from typing import Any

from internvl_chat.constants import IMAGE_PLACEHOLDER, SPECIAL_TOKENS, VIDEO_PLACEHOLDER
from internvl_chat.contracts import UserError

# What the prompt calls an object of which nobody says.
DEFAULT_NAME = "object"

# Longer than any name; a whole text under 'name' is a slip of the export.
MAX_NAME_CHARS = 200

# `<|im_end|>` and its like, of whichever chat.
_CHAT_TOKEN = re.compile(r"<\|[a-z_]+\|>|</?s>|\[/?INST\]")
_NOT_PRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def check_name(name: Any, source: str) -> str:
    """The name, if it can stand in a prompt.

    Raises:
        UserError: it is empty, too long, or holds line breaks, placeholders or tokens that steer the chat.
    """
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"{source}: the name {reprlib.repr(name)} is empty: expected what the object is called")
    if len(name) > MAX_NAME_CHARS:
        raise UserError(f"{source}: the name {name[:40]!r}... has {len(name)} characters, at most {MAX_NAME_CHARS}")
    if broken := _NOT_PRINTED.search(name):
        raise UserError(f"{source}: the name {name!r} holds U+{ord(broken.group()):04X}: expected one line of text")
    tokens = [token for token in (IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER, *SPECIAL_TOKENS) if token in name]
    if match := _CHAT_TOKEN.search(name):
        tokens.append(match.group())
    if tokens:
        raise UserError(f"{source}: the name {name!r} holds {tokens[0]}, which would steer the prompt: rename it")
    return name
