"""The contact sheet of box control: one clip, two boxes, two captions."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from internvl_chat.contracts import Sample
from internvl_chat.data.frame_sampling import sample_frames
from internvl_chat.data.media import read_media_header, read_pictures
from internvl_chat.data.picture import Strip, contact_sheet
from internvl_chat.data.tracks import boxes_at
from internvl_chat.evaluation.control import ControlResult


def control_sheet(result: ControlResult, samples: Sequence[Sample], num_frames: int, num_clips: int) -> Image.Image:
    """The first `num_clips` clips, each shown twice: with its own box and with the other object's."""
    by_id = {sample.id: sample for sample in samples}
    strips: list[Strip] = []
    shown: set[str] = set()
    for sample in samples:
        other = by_id[result.other_target[sample.id]]
        if other.id in shown or len(shown) >= num_clips:
            continue
        shown.add(sample.id)
        for boxed, text in ((sample, result.right[sample.id]), (other, result.swapped[sample.id])):
            header = read_media_header(sample)
            indices = sample_frames(num_frames, header.num_pictures, "centre")
            boxes = boxes_at(boxed.tracks[0], indices, header, boxed.source)
            mark = "right" if text in result.references[boxed.id] else "wrong"
            lines = [text, f"[clip {sample.id}, box of {boxed.id}, {mark}]"]
            strips.append(Strip(read_pictures(sample, indices), boxes, lines))
    return contact_sheet(strips)
