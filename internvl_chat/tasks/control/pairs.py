"""Which clips show two objects: given in a file, or found among questions about the same pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.media.sources import content_mark
from internvl_chat.files import read_json


def pairs_of(samples: Sequence[Sample]) -> dict[str, str]:
    """Which question is about another object of the same pictures, by id: the next one's, and the first after the last.

    Pictures are the same where their files have the same content, whatever they are called. Of several tracks a
    question names one first; those of another number of tracks cannot take its place.
    """
    by_clip: dict[object, dict[object, str]] = defaultdict(dict)
    for sample in samples:
        if sample.tracks:
            clip = (_pictures_of(sample), sample.clip_s, len(sample.tracks))
            by_clip[clip].setdefault(sample.tracks, sample.id)
    pairs: dict[str, str] = {}
    for of_clip in by_clip.values():
        ids = list(of_clip.values())
        if len(ids) > 1:
            pairs |= zip(ids, [*ids[1:], ids[0]], strict=True)
    return pairs


def _pictures_of(sample: Sample) -> tuple[str, ...]:
    paths = sample.image_paths if sample.video_path is None else (sample.video_path,)
    try:
        return tuple(map(content_mark, paths))
    except UserError:
        # Predicting names what cannot be read.
        return tuple(map(str, paths))


def read_other_targets(path: Path) -> dict[str, str]:
    """Read which id has the same clip with the other object's box, by id.

    Raises:
        UserError: it is no JSON object of ids.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise UserError(f"{path}: expected {{id: id of the same clip with the other object's box}}")
    return content
