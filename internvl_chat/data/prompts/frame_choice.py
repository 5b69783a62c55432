"""Which frames of a video are captioned, chosen by when they are shown.

Shape letters: F frames chosen, N frames of the video.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from internvl_chat.contracts import UserError
from internvl_chat.data.media.timeline import Timeline

# Of CogVLM2-Caption: so many frames at most, and what `base` sees of a video.
MOST_FRAMES, BASE_S = 24, 60

_CHOICE = re.compile(r"(chat|base)|(uniform) ?([1-9][0-9]{0,8})|(fps) ?([0-9]{1,9}(?:\.[0-9]{1,9})?)")


@dataclass(frozen=True)
class ShownTimes:
    """When the frames of a video, or of a part of it, are shown.

    Args:
        first: the number of its first frame.
        times_s: [N] ascending, seconds from the video's first frame.
        frames_per_second: the rate that the container states; 0 where it states none.
    """

    first: int
    times_s: npt.NDArray[np.float64]
    frames_per_second: float

    @staticmethod
    def of(timeline: Timeline) -> ShownTimes:
        """Those of a whole video.

        Raises:
            UserError: there is no time in it.
        """
        if not (timeline.times_s or timeline.frames_per_second):
            raise UserError("it says neither when its frames are shown nor their rate")
        times_s = timeline.seconds_of(np.arange(timeline.num_frames))
        return ShownTimes(0, np.asarray(times_s, np.float64), timeline.frames_per_second)

    @property
    def from_s(self) -> float:
        return float(self.times_s[0])

    @property
    def until_s(self) -> float:
        """When the last frame has been shown: as long as the others on average."""
        shown = self.times_s
        if len(shown) > 1:
            return float(shown[-1] + (shown[-1] - shown[0]) / (len(shown) - 1))
        return float(shown[-1] + (1 / self.frames_per_second if self.frames_per_second else 0))

    def within(self, clip_s: tuple[float, float] | None) -> ShownTimes:
        """The frames that are first shown from the one second to the other; all of them for None.

        Raises:
            UserError: there is none.
        """
        if clip_s is None:
            return self
        start, stop = np.searchsorted(self.times_s, clip_s[0]), np.searchsorted(self.times_s, clip_s[1], "right")
        if start == stop:
            raise UserError(
                f"'clip' {list(clip_s)}: no frame is first shown then; the video lasts {self.until_s:.2f} s"
            )
        return ShownTimes(self.first + int(start), self.times_s[start:stop], self.frames_per_second)

    def windows(self, window_s: float) -> list[ShownTimes]:
        """The frames of each `window_s` seconds, counted from 0; a window in which no frame begins is left out."""
        number = np.floor(self.times_s / window_s)
        starts = np.flatnonzero(np.diff(number, prepend=-1))
        stops = [*starts[1:], len(number)]
        return [
            ShownTimes(self.first + int(start), self.times_s[start:stop], self.frames_per_second)
            for start, stop in zip(starts, stops, strict=True)
        ]


@dataclass(frozen=True)
class FrameChoice:
    """A way to choose frames; `name` is how it is written in flags, checkpoints and results.

    Args:
        kind: `chat`, the frame nearest to each full second, up to 24 (as CogVLM2-Caption is used); `base`, 24 frames
            spread over the first minute; `uniform`, `amount` frames spread over all of it; `fps`, the frames nearest
            to every 1 / `amount` seconds.
    """

    kind: Literal["chat", "base", "uniform", "fps"]
    amount: float = 0

    @staticmethod
    def named(text: str) -> FrameChoice:
        """The choice that `chat`, `base`, `uniform8` or `fps0.5` names; a space before the number is allowed.

        Raises:
            UserError: it names none.
        """
        match = _CHOICE.fullmatch(text.strip())
        if match is None or match[5] and not float(match[5]):
            raise UserError(f"frame choice {text!r:.60}: expected chat, base, uniform and a number, or fps and a rate")
        if match[1]:
            return FrameChoice("chat" if match[1] == "chat" else "base")
        return FrameChoice("uniform", int(match[3])) if match[2] else FrameChoice("fps", float(match[5]))

    @property
    def name(self) -> str:
        return self.kind if self.kind in ("chat", "base") else f"{self.kind}{self.amount:g}"

    def frames(self, shown: ShownTimes) -> npt.NDArray[np.int64]:
        """The numbers [F] of the chosen frames, ascending; of a video shorter than what is asked, repeated in `base`.

        Source: CogVLM2-Caption's model card, `load_video`.
        """
        times_s = shown.times_s - shown.times_s[0]
        if self.kind == "base":
            within = int(BASE_S * self._rate(shown))
            stop = min(len(times_s), within) if within else len(times_s)
            return shown.first + np.linspace(0, stop - 1, MOST_FRAMES, dtype=np.int64)
        if self.kind == "chat":
            # The original's reader gives times in single precision, where other frames may tie.
            exact = times_s.astype(np.float32)
            seconds = np.arange(round(float(exact[-1])) + 1)[:MOST_FRAMES]
            return shown.first + _nearest(exact, seconds.astype(np.float32))
        length_s = shown.until_s - shown.from_s
        if self.kind == "uniform":
            count = int(self.amount)
            wanted_s = (np.arange(count) + 0.5) * (length_s / count)
            return shown.first + np.unique(_nearest(times_s, wanted_s))
        wanted_s = np.arange(0, max(length_s, 1e-9), 1 / self.amount)
        return shown.first + np.unique(_nearest(times_s, wanted_s))

    @staticmethod
    def _rate(shown: ShownTimes) -> float:
        if shown.frames_per_second or len(shown.times_s) == 1:
            return shown.frames_per_second
        return (len(shown.times_s) - 1) / float(shown.times_s[-1] - shown.times_s[0])

    def unseen_s(self, shown: ShownTimes) -> tuple[float, float] | None:
        """From when to when a video goes on behind what this choice looks at; None where it looks at all of it."""
        limit_s = {"chat": MOST_FRAMES, "base": BASE_S}.get(self.kind)
        if limit_s is None or shown.until_s - shown.from_s <= limit_s:
            return None
        return shown.from_s + limit_s, shown.until_s


def _nearest(times: npt.NDArray[np.floating], wanted: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """The number of the time nearest to each wanted one, the first where several are; `times` ascend."""
    after = np.clip(np.searchsorted(times, wanted), 1, max(1, len(times) - 1))
    if len(times) == 1:
        return np.zeros(len(wanted), np.int64)
    closer = np.where(np.abs(times[after] - wanted) < np.abs(times[after - 1] - wanted), after, after - 1)
    return np.searchsorted(times, times[closer])
