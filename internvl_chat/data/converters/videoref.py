"""Artemis' stage-3 lists, as VideoRef45K is published: a caption, a folder of frames, a track with gaps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from internvl_chat.data.converters.forms.conversion import Conversion
from internvl_chat.data.converters.forms.described import Faults, records_of
from internvl_chat.data.converters.forms.followed import entries_of_lists, followed
from internvl_chat.files import parse_json


def records(source: Path, options: Conversion) -> Iterator[dict[str, Any]]:
    """A record an entry of a list, or of all lists of a folder; `frame_path` lies under `root`.

    `track_list` has x1 y1 x2 y2 in pixels for each name of `frame_id`, or nothing where the tracker lost the object;
    the key frame's box counts too. The question is asked in this project's words, whatever the list says.

    Raises:
        UserError: all entries that cannot be used, by line.
    """
    faults, found = Faults(options.faults), []
    for text, name, where in entries_of_lists(source):
        with faults.gathered():
            found.append(followed(parse_json(text, where), name, options.root, where))
    yield from records_of(found, options.root, options.question, faults)
