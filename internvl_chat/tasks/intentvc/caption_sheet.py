"""The contact sheet of a run: clips with the box that was given, and what was said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from PIL import Image

from internvl_chat.contracts import UserError
from internvl_chat.data.media.drawing import contact_sheet
from internvl_chat.inference.requests import Ask, Viewpoint


def caption_sheet(view: Viewpoint, asks: Sequence[Ask], captions: Mapping[str, str], num_clips: int) -> Image.Image:
    """The first `num_clips` captioned clips, as the first model was shown them.

    Raises:
        UserError: none of them shows a picture.
    """
    shown = (ask for ask in asks if ask.id in captions and (ask.samples[0].video_path or ask.samples[0].image_paths))
    strips = [
        view.strip(ask.samples[0], [captions[ask.id], f"[{ask.id}, {ask.samples[0].object_name or 'no box'}]"])
        for ask in islice(shown, num_clips)
    ]
    if not strips:
        raise UserError("--sheet: no question shows a picture: leave the flag out")
    return contact_sheet(strips)
