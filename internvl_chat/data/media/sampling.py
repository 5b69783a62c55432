"""Which frames of a video are shown to the model."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from internvl_chat.contracts import UserError
from internvl_chat.data.media.timeline import Timeline

# `rand`, `middle`, `centre`, or `fps` and a number: frames a second.
FrameSampling = str

# Ends of clips are rounded to seconds.
_CLIP_SLIP_S = 1.0

_RATE = re.compile(r"fps([0-9]+(?:\.[0-9]+)?)")


def rate_of(method: FrameSampling) -> float | None:
    """The frames a second that `fps2` or `fps0.5` asks for; None for a method that takes a number of frames.

    Raises:
        UserError: an unknown method.
    """
    if method in ("rand", "middle", "centre"):
        return None
    match = _RATE.fullmatch(method)
    if match is None or float(match[1]) == 0:
        raise UserError(
            f"unknown --sampling_method {method!r}: expected rand, middle or centre, or a rate such as fps1 or fps0.5"
        )
    return float(match[1])


def clip_window(clip_s: tuple[float, float] | None, timeline: Timeline) -> tuple[int, int]:
    """First frame and number of frames of a part of a video.

    Args:
        clip_s: from and to in seconds, both nearest frames included; None is the whole video.
    Raises:
        UserError: the video states no rate, or ends before the clip begins, or long before it ends.
    """
    if clip_s is None:
        return 0, timeline.num_frames
    if timeline.frames_per_second <= 0:
        raise UserError(f"'clip' {list(clip_s)} is in seconds, but the video states no rate")
    first, last = timeline.nearest(np.array(clip_s)).tolist()
    if first >= timeline.num_frames:
        raise UserError(
            f"'clip' {list(clip_s)} begins after the end of the video, which lasts {timeline.duration_s:.2f} s"
        )
    if clip_s[1] > timeline.duration_s + _CLIP_SLIP_S:
        raise UserError(
            f"'clip' {list(clip_s)} ends after the end of the video, which lasts {timeline.duration_s:.2f} s"
        )
    return first, min(last, timeline.num_frames - 1) - first + 1


def _segments(num_frames: int, video_length: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First and last frame of each of `min(num_frames, video_length)` equal segments, both inclusive."""
    bounds = np.linspace(0, video_length, min(num_frames, video_length) + 1).astype(np.int64)
    return bounds[:-1], bounds[1:] - 1


def _padded(indices: npt.NDArray[np.int64], num_frames: int) -> npt.NDArray[np.int64]:
    """Repeat the last frame of a video that is too short."""
    return np.concatenate([indices, np.full(num_frames - len(indices), indices[-1])])


def _at_rate(rate: float, num_frames: int, timeline: Timeline) -> npt.NDArray[np.int64]:
    """The frames nearest to the middles of spans of 1 / `rate` seconds; the middle of a video shorter than half a span.

    Where they are more than `num_frames`, so many of them, spread over the whole video.
    """
    if timeline.frames_per_second <= 0:
        raise UserError(f"sampling by 'fps{rate:g}' needs a video that states its rate")
    span_s = 1 / rate
    indices = timeline.nearest(np.arange(span_s / 2, timeline.duration_s + span_s / 2, span_s))
    indices = indices[indices < timeline.num_frames]
    if len(indices) > num_frames:
        first, last = _segments(num_frames, len(indices))
        return indices[(first + last) // 2]
    return indices if len(indices) else np.array([timeline.num_frames // 2])


def sample_frames(
    num_frames: int,
    video_length: int,
    method: FrameSampling,
    rng: np.random.Generator | None = None,
    timeline: Timeline | None = None,
) -> npt.NDArray[np.int64]:
    """Indices of `num_frames` frames, ascending; with `fpsX` at most so many.

    Args:
        method: `rand` draws one frame from each equal segment, `middle` takes its middle (both as InternVL trains;
            a shorter video repeats its last frame), `centre` takes segment centres as InternVL's evaluation does,
            `fpsX` takes X frames a second, or `num_frames` spread over a longer video.
        rng: what `rand` draws from.
        timeline: when the `video_length` frames are shown, for `fpsX`; None is without times.
    Returns:
        [F] int64, each in 0 to `video_length - 1`.
    Raises:
        ValueError: no frames asked for or none there, or `rand` without `rng`.
        UserError: an unknown method, or `fpsX` of a video without a rate.
    """
    if num_frames < 1 or video_length < 1:
        raise ValueError(f"cannot take {num_frames} frames from a video of {video_length}")
    rate = rate_of(method)
    if rate is not None:
        return _at_rate(rate, num_frames, timeline or Timeline(video_length))
    if method == "centre":
        segment = (video_length - 1) / num_frames
        return (segment / 2 + np.round(segment * np.arange(num_frames))).astype(np.int64)
    first, last = _segments(num_frames, video_length)
    if method == "middle":
        return _padded((first + last) // 2, num_frames)
    if rng is None:
        raise ValueError("method 'rand' needs a random generator")
    return _padded(rng.integers(first, last, endpoint=True), num_frames)
