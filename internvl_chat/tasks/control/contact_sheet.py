"""The contact sheet of box control: one clip, two boxes, two captions."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image

from internvl_chat.contracts import Sample
from internvl_chat.data.media.drawing import Strip, contact_sheet
from internvl_chat.data.media.sampling import sample_frames
from internvl_chat.data.media.sources import read_media_header, read_pictures
from internvl_chat.data.records.tracks import boxes_at
from internvl_chat.tasks.control.probes import ControlResult


def control_sheet(result: ControlResult, samples: Mapping[str, Sample], num_frames: int, num_clips: int) -> Image.Image:
    """The first `num_clips` clips, each shown twice: with its own box and with the other object's.

    Args:
        samples: id -> sample, of both objects of each clip.
    """
    strips: list[Strip] = []
    shown: set[str] = set()
    for video_id, swapped in result.swapped.items():
        other_id = result.other_target[video_id]
        if other_id in shown or len(shown) >= num_clips or video_id not in result.right:
            continue
        shown.add(video_id)
        for boxed_id, text in ((video_id, result.right[video_id]), (other_id, swapped)):
            clip, boxed = samples[video_id], samples[boxed_id]
            header = read_media_header(clip)
            indices = sample_frames(num_frames, header.num_pictures, "centre")
            boxes = boxes_at(boxed.tracks[0], indices, header, boxed.source)
            mark = "right" if text in result.references[boxed_id] else "wrong"
            lines = [text, f"[clip {video_id}, box of {boxed_id}, {mark}]"]
            strips.append(Strip(read_pictures(clip, indices), boxes, lines))
    return contact_sheet(strips)
