"""When the frames of a video are shown, and which frame is shown at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Containers round times to their own units; frames this share of a step beside an even beat still keep to it.
_OFF_BEAT = 0.1


@dataclass(frozen=True)
class Timeline:
    """The times of a video's frames, counted from the first one.

    Args:
        num_frames: how many a decoder presents.
        frames_per_second: on average; 0 where there is no time.
        times_s: of every frame, ascending, where they do not come evenly; none where the rate says all.
    """

    num_frames: int
    frames_per_second: float = 0.0
    times_s: tuple[float, ...] = ()

    @property
    def duration_s(self) -> float:
        """How long it is shown; the last frame of an uneven video is taken to stay as long as the one before."""
        if self.times_s:
            return 2 * self.times_s[-1] - self.times_s[-2]
        return self.num_frames / self.frames_per_second

    def seconds_of(self, indices: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        """When these frames [F] are shown."""
        return np.array(self.times_s)[indices] if self.times_s else indices / self.frames_per_second

    def nearest(self, seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """The frames [F] that are nearest to these times; beyond the last frame's half, `num_frames` or more."""
        if not self.times_s:
            # Times may be larger than any frame's number.
            return np.minimum(np.rint(seconds * self.frames_per_second), self.num_frames).astype(np.int64)
        times_s = np.array(self.times_s)
        middles_s = np.append((times_s[1:] + times_s[:-1]) / 2, (times_s[-1] + self.duration_s) / 2)
        return np.searchsorted(middles_s, seconds)

    def part(self, first: int, num_frames: int) -> Timeline:
        """The timeline of a part, whose first frame comes at 0."""
        times_s = self.times_s[first : first + num_frames]
        if len(times_s) < 2:
            return Timeline(num_frames, self.frames_per_second)
        return Timeline(num_frames, self.frames_per_second, tuple(time_s - times_s[0] for time_s in times_s))


def timeline_of(times_s: Sequence[float], stated_rate: float) -> Timeline:
    """The timeline of frames at these times, ascending; even ones are said by their rate alone.

    Args:
        stated_rate: frames a second as the container has it; 0 is unknown. It is taken where the times keep to it.
    """
    times = np.array(times_s)
    if len(times) < 2:
        return Timeline(len(times), stated_rate)
    times -= times[0]
    mean_rate = float((len(times) - 1) / times[-1])
    for rate in (stated_rate, mean_rate):
        if rate > 0 and np.abs(times * rate - np.arange(len(times))).max() < _OFF_BEAT:
            return Timeline(len(times), rate)
    return Timeline(len(times), mean_rate, tuple(times.tolist()))
