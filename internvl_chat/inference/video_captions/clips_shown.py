"""Clips to caption: what of each video is shown, and what is asked about it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from internvl_chat.constants import VIDEO_PLACEHOLDER
from internvl_chat.contracts import Sample, Track, UserError
from internvl_chat.data.media.video import read_header
from internvl_chat.data.prompts.frame_choice import FrameChoice, ShownTimes
from internvl_chat.data.prompts.wordings import question_turn, wording_named
from internvl_chat.data.records.video_lists import ListedVideo
from internvl_chat.inference.ranks import Ranks
from internvl_chat.inference.requests import Ask

# As CogVLM2-Caption is asked.
DEFAULT_QUESTION = "Please describe this video in detail."
# Headers that are read side by side: this waits for disks, and not for processors.
_READERS = 8


@dataclass(frozen=True)
class Clip:
    """A video, one window of it, or one object in either, that gets a caption.

    Args:
        frames, times_s: numbers of the frames shown, and when they are, in seconds from the video's first frame.
        seconds: from when to when the caption speaks of it.
        unseen_s: the part of that which no frame was taken of; None where frames lie all over it.
        is_window: whether it is one window of several.
        track: of the object that the caption is about; None is all of the video.
    """

    video: ListedVideo
    question: str
    frames: tuple[int, ...]
    times_s: tuple[float, ...]
    seconds: tuple[float, float]
    unseen_s: tuple[float, float] | None
    is_window: bool
    track: Track | None = None

    @property
    def id(self) -> str:
        """Its own among the clips of a run. Plain ASCII, whatever the bytes of a file's name."""
        words = [json.dumps(self.video.name)]
        if self.video.question is not None:
            words.append(json.dumps(self.question))
        if self.is_window:
            words.append(f"at {self.seconds[0]:g} s")
        if self.track is not None:
            words.append(json.dumps(self.track.name))
        return " ".join(words)

    @property
    def called(self) -> str:
        """How results call it: by its video's name, with its object and window where it has them."""
        words = [self.video.name, *([self.track.name] if self.track else [])]
        return " ".join([*words, *([f"at {self.seconds[0]:g} s"] if self.is_window else [])])

    @property
    def ask(self) -> Ask:
        turn = question_turn(f"{VIDEO_PLACEHOLDER}\n{self.question}")
        path, tracks = self.video.path, () if self.track is None else (self.track,)
        sample = Sample(self.id, (turn,), str(path), video_path=path, tracks=tracks, frame_numbers=self.frames)
        return Ask(self.id, (sample,))


@dataclass(frozen=True)
class Failure:
    """A video that has no caption, or a window of it that has none, and why."""

    video: str
    reason: str


@dataclass(frozen=True)
class Request:
    """What is asked of every video, and what of it is shown.

    Args:
        question: where a list has none of its own; None is the usual one about a video, or about an object.
        window_s: captions are written of so many seconds each; None is one caption a video.
        per_object: a caption is written of each tracked object.
    """

    question: str | None
    choice: FrameChoice
    window_s: float | None = None
    per_object: bool = False

    def clips(self, video: ListedVideo) -> list[Clip]:
        """What is to be captioned of a video; no frame is decoded.

        Raises:
            UserError: it is no video, or says nothing of time; or its tracks are needed and cannot be used.
        """
        try:
            shown = ShownTimes.of(read_header(video.path).timeline)
        except UserError as error:
            raise UserError(f"{video.path}: {str(error).removeprefix(f'{video.path}: ')}") from error
        parts = [shown] if self.window_s is None else shown.windows(self.window_s)
        tracks: Sequence[Track | None] = video.objects() if self.per_object else (None,)
        return [self._clip(video, shown, part, track) for part in parts for track in tracks]

    def _clip(self, video: ListedVideo, shown: ShownTimes, part: ShownTimes, track: Track | None) -> Clip:
        frames = self.choice.frames(part)
        begin, end = part.from_s, part.until_s
        if self.window_s is not None:
            begin = math.floor(part.from_s / self.window_s) * self.window_s
            end = min(begin + self.window_s, shown.until_s)
        return Clip(
            video,
            video.question or self.question or _usual_question(track),
            tuple(frames.tolist()),
            tuple(shown.times_s[frames].round(6).tolist()),
            (round(begin, 6), round(end, 6)),
            self.choice.unseen_s(part),
            self.window_s is not None,
            track,
        )


def _usual_question(track: Track | None) -> str:
    return DEFAULT_QUESTION if track is None else wording_named("coordinates").asks(track.name)


def clips_of(videos: Sequence[ListedVideo], request: Request) -> tuple[list[Clip], list[Failure]]:
    """The clips of all videos, in order, and the videos that cannot be read."""

    def read(video: ListedVideo) -> list[Clip] | Failure:
        try:
            return request.clips(video)
        except UserError as error:
            return Failure(video.name, str(error))

    with ThreadPoolExecutor(_READERS) as readers:
        results = list(readers.map(read, videos))
    clips = [clip for result in results if not isinstance(result, Failure) for clip in result]
    return clips, [result for result in results if isinstance(result, Failure)]


def clips_together(videos: Sequence[ListedVideo], request: Request, ranks: Ranks) -> tuple[list[Clip], list[Failure]]:
    """The clips of all videos, each once, the same on all ranks; each reads the headers of its share.

    Raises:
        UserError: two objects of a video, or of a window of it, are called alike.
    """
    size = -(-len(videos) // ranks.size)
    parts = ranks.gathered(clips_of(videos[ranks.rank * size : (ranks.rank + 1) * size], request))
    clips = _each_once(clip for clips, _ in parts for clip in clips)
    return clips, [failure for _, failures in parts for failure in failures]


def _each_once(clips: Iterable[Clip]) -> list[Clip]:
    """Lines of a list may ask the same of one video; about two objects of one name, neither could be told apart."""
    found: dict[str, Clip] = {}
    for clip in clips:
        track = found.setdefault(clip.id, clip).track
        if clip.track is not None and clip.track != track:
            raise UserError(
                f"{clip.video.path}: lines of the list call two tracks {clip.track.name!r}: give each a name of its own"
            )
    return list(found.values())
