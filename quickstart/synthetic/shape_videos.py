"""Short videos of a moving shape each, and what is said about them: the task of the caption proof."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from internvl_chat.data.synthetic.shapes import HEIGHT_PX, WIDTH_PX, Clip, sample_clip, write_video
from internvl_chat.files import write_json
from internvl_chat.processes import worker_pool

# CogVLM2-Video cuts the middle square out of a frame: everything happens there.
_SIDE_PX, _MARGIN_PX = HEIGHT_PX, (WIDTH_PX - HEIGHT_PX) / 2


def draw_video(rng: np.random.Generator) -> Clip:
    """A shape that moves, or stays, inside the middle square."""
    clip = sample_clip(rng)
    item = clip.objects[0]
    boxes_px = item.boxes_px.copy()
    size_px = boxes_px[0, 2]
    boxes_px[:, 0] = _MARGIN_PX + boxes_px[:, 0] * (_SIDE_PX - size_px) / (WIDTH_PX - size_px)
    return replace(clip, objects=(replace(item, boxes_px=boxes_px),))


def in_square(clip: Clip) -> Clip:
    """The same objects with boxes that take the middle square for the whole picture."""
    scale = WIDTH_PX / _SIDE_PX
    return replace(
        clip,
        objects=tuple(
            replace(item, boxes_px=(item.boxes_px - [_MARGIN_PX, 0, 0, 0]) * [scale, 1, scale, 1])
            for item in clip.objects
        ),
    )


def caption_of(clip: Clip) -> str:
    """A sentence that says all there is to see."""
    (item,) = clip.objects
    where = "nowhere" if item.motion == "still" else item.motion
    return f"In this video a {item.colour} {item.shape} goes {where}."


def _write(job: tuple[Path, Clip]) -> None:
    write_video(*job)


def write_videos(folder: Path, numbers: range, seed: int) -> dict[str, str]:
    """Write `00000.mp4` and so on; a video depends on the seed and its number alone.

    Returns:
        What there is to say about each, by the file's name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clips = {f"{number:05d}.mp4": draw_video(np.random.default_rng([seed, number])) for number in numbers}
    with worker_pool(None) as pool:
        list(pool.map(_write, [(folder / name, clip) for name, clip in clips.items()], chunksize=8))
    return {name: caption_of(clip) for name, clip in clips.items()}


def write_labels(folder: Path, captions: dict[str, str], questions: Sequence[str]) -> None:
    """Conversations in the layout of CogVLM2's own demo: a file of the same name a video, in a folder `labels`."""
    for number, (name, caption) in enumerate(captions.items()):
        turns = [
            {"role": "user", "content": questions[number % len(questions)]},
            {"role": "assistant", "content": caption},
        ]
        write_json((folder / name).with_suffix(".json"), {"conversations": turns})
