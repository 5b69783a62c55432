"""Clips inside a page: frames with their box, side by side or one after the other, and the drawing of a whole track."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from PIL import Image

from internvl_chat.boxes import BoxArray, is_absent
from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.media.drawing import Strip, contact_sheet
from internvl_chat.data.media.sampling import clip_window, sample_frames
from internvl_chat.data.media.sources import read_media_header, read_pictures
from internvl_chat.data.records.tracks import boxes_at, every_box_of
from internvl_chat.reports.html import data_uri

TRACK_BOXES = 12
STRIP_PX, FILM_PX, FILM_FRAME_MS = 200, 360, 400


@dataclass(frozen=True)
class Track:
    """A clip's boxes as the sheet draws them.

    `boxes` are x, y, width, height in thousandths and the moment (0 to 1) of a few frames; `paths` the centres of each
    stretch of frames with a box, as SVG points; `stretches` start, length (in percent of the clip) and presence.
    """

    boxes: Sequence[tuple[int, int, int, int, float]]
    paths: Sequence[str]
    stretches: Sequence[tuple[float, float, bool]]

    @classmethod
    def of(cls, boxes: BoxArray) -> Track:
        """The drawing of a track [T, 4]."""
        present = np.flatnonzero(~is_absent(boxes))
        chosen = present[np.unique(np.linspace(0, len(present) - 1, TRACK_BOXES).astype(int))] if len(present) else []
        shown = []
        for frame in chosen:
            x1, y1, x2, y2 = (int(v) for v in boxes[frame])
            shown.append((x1, y1, x2 - x1, y2 - y1, float(frame) / max(1, len(boxes) - 1)))
        paths, stretches = [], []
        for is_there, group in groupby(range(len(boxes)), key=lambda t: not is_absent(boxes[t])):
            frames = list(group)
            stretches.append((frames[0] / len(boxes) * 100, len(frames) / len(boxes) * 100, bool(is_there)))
            if is_there:
                points = frames[:: max(1, len(boxes) // 100)]
                paths.append(" ".join(f"{boxes[t][::2].mean():.0f},{boxes[t][1::2].mean():.0f}" for t in points))
        return cls(shown, paths, stretches)


@dataclass(frozen=True)
class Picture:
    """Frames with their boxes as a data URI, and a frame's width over its height."""

    uri: str
    aspect: float


@dataclass(frozen=True)
class ShownClip:
    """What a card shows of a clip; `fault` says why it has no picture, of those that should have one."""

    picture: Picture | None = None
    track: Track | None = None
    fault: str | None = None

    @classmethod
    def of(
        cls, sample: Sample | None, num_frames: int, *, boxes: BoxArray | None = None, as_film: bool = False
    ) -> ShownClip:
        """The card of a clip.

        Args:
            sample: None where only its boxes are known.
            boxes: of its track [T, 4]; None are the sample's own.
            as_film: frames one after the other in place of side by side.
        """
        track = None if boxes is None else Track.of(boxes)
        if sample is None or not (sample.video_path or sample.image_paths):
            return cls(track=track)
        try:
            if boxes is None and sample.tracks:
                track = Track.of(every_box_of(sample, sample.tracks[0]))
            return cls(_picture_of(sample, num_frames, as_film), track)
        except UserError as error:
            return cls(None, track, str(error))


def _picture_of(sample: Sample, num_frames: int, as_film: bool) -> Picture:
    header = read_media_header(sample)
    indices = np.arange(header.num_pictures)[:num_frames]
    if sample.video_path is not None:
        first, length = clip_window(sample.clip_s, header.timeline)
        indices = first + sample_frames(num_frames, length, "centre")
    pictures = read_pictures(sample, indices)
    boxes = boxes_at(sample.tracks[0], indices, header, sample.source) if sample.tracks else None
    height, width = pictures[0].shape[:2]
    if as_film:
        frames = [
            contact_sheet([Strip([picture], None if boxes is None else boxes[n : n + 1], [])], FILM_PX)
            for n, picture in enumerate(pictures)
        ]
        return Picture(_film(frames), width / height)
    sheet = contact_sheet([Strip(pictures, boxes, [])], STRIP_PX, frames_per_row=math.ceil(num_frames**0.5))
    buffer = io.BytesIO()
    sheet.save(buffer, format="JPEG", quality=70)
    return Picture(data_uri("image/jpeg", buffer.getvalue()), width / height)


def _film(frames: Sequence[Image.Image]) -> str:
    buffer = io.BytesIO()
    first, *others = frames
    first.save(
        buffer, format="WEBP", save_all=True, append_images=others, duration=FILM_FRAME_MS, loop=0, quality=60, method=4
    )
    return data_uri("image/webp", buffer.getvalue())
