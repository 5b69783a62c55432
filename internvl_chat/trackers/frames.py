"""Frames one after another, forwards or backwards, with a bounded number of them in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from internvl_chat.contracts import Sample
from internvl_chat.data.media.sources import MediaHeader, Pictures, read_media_header, read_pictures
from internvl_chat.data.media.video import VideoBackend, stream_frames
from internvl_chat.trackers.protocol import Frame

# Frames that are decoded together where they cannot be handed on one by one.
MAX_RUN_BYTES, MAX_RUN_FRAMES = 2**28, 64


class Footage:
    """A video file or a folder of frames that is read from end to end.

    Raises:
        UserError: it is missing, or cannot be read.
    """

    def __init__(self, path: Path, backend: VideoBackend = "pyav") -> None:
        self.path, self.backend = path, backend
        self._sample = Sample(path.stem, (), str(path), video_path=path)
        self.header: MediaHeader = read_media_header(self._sample)

    @property
    def num_frames(self) -> int:
        return self.header.num_pictures

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height."""
        return self.header.sizes_px[0]

    def forwards(self, first: int) -> Iterator[Frame]:
        """Frames [H, W, 3] from number `first` to the last one."""
        if not self.path.is_dir():
            yield from stream_frames(self.path, np.arange(first, self.num_frames), self.backend)
            return
        for start in range(first, self.num_frames, self._run_length):
            yield from self._run(start, min(start + self._run_length, self.num_frames))

    def backwards(self, first: int) -> Iterator[Frame]:
        """Frames [H, W, 3] from number `first` down to 0, decoded in runs."""
        for stop in range(first + 1, 0, -self._run_length):
            yield from self._run(max(stop - self._run_length, 0), stop)[::-1]

    def at(self, numbers: npt.NDArray[np.integer]) -> Pictures:
        """The frames of these numbers, ascending."""
        return read_pictures(self._sample, numbers, self.backend)

    @property
    def _run_length(self) -> int:
        width_px, height_px = self.size_px
        return max(1, min(MAX_RUN_FRAMES, MAX_RUN_BYTES // (3 * width_px * height_px)))

    def _run(self, start: int, stop: int) -> list[Frame]:
        return list(self.at(np.arange(start, stop)))
