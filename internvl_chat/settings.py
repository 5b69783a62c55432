"""Settings: a dataclass owns each one, with its default and its help; flags, saved files and checks follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from internvl_chat.contracts import UserError


def setting(default: Any, about: str) -> Any:
    """A dataclass field that is a flag too: of the field's name, with `about` as its help."""
    return field(default=default, metadata={"help": about})


def check_settings(settings: Any, least: Mapping[str, float] = {}) -> None:
    """Hold every value against the list of its `Literal`, and the named ones against the least that they may be.

    Raises:
        UserError: a value is none of them, or too small; the message names the flag.
    """
    hints = get_type_hints(type(settings))
    for setting_field in fields(settings):
        name, value = setting_field.name, getattr(settings, setting_field.name)
        if get_origin(hints[name]) is Literal and value not in get_args(hints[name]):
            known = ", ".join(get_args(hints[name]))
            raise UserError(f"unknown --{name} {value!r}: expected one of {known}")
    for name, at_least in least.items():
        value = getattr(settings, name)
        if value is not None and value < at_least:
            raise UserError(f"--{name} {value}: expected {at_least} or more")
