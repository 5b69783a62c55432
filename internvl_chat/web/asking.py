"""What the page asks the model: captions of all objects in one pass, and whether a caption follows the box."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from internvl_chat.api import Captioner, Following
from internvl_chat.contracts import UserError
from internvl_chat.web.pointing import PointedClip, PointedObject


def with_captions(
    captioner: Captioner, path: Path, pointed: PointedClip, objects: Sequence[PointedObject], **decoding: Any
) -> PointedClip:
    """A clip with captions of these objects; its frames are seen once for all of them.

    Args:
        decoding: settings of `Decoding`.
    Raises:
        UserError: there are none, or one is not tracked.
    """
    _check_tracked(objects)
    captions = captioner.caption_objects(path, {one.label: one.track() for one in objects}, **decoding)
    for one in objects:
        pointed = pointed.with_object(one.with_captions(captions[one.label].candidates))
    return pointed


def following_of(captioner: Captioner, path: Path, one: PointedObject, other: PointedObject | None) -> Following:
    """What is said of an object with its own box, with none, and with another object's.

    Raises:
        UserError: one of them is not tracked.
    """
    _check_tracked([one] if other is None else [one, other])
    return captioner.follow_the_box(path, one.track(), None if other is None else other.track(), name=one.name)


def _check_tracked(objects: Sequence[PointedObject]) -> None:
    if not objects:
        raise UserError("draw a box around an object, and track it, first")
    waiting = [one.label for one in objects if not one.is_tracked]
    if waiting:
        raise UserError(f"not tracked as given now: {', '.join(waiting)}: track first")
