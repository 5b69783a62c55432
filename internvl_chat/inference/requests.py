"""What is asked of a model, and which asks can share work: the frames of a clip, and a batch.

Shape letters: F pictures shown, L text positions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import numpy as np
from torch.utils.data import DataLoader, Dataset

from internvl_chat.boxes import BoxArray
from internvl_chat.contracts import Sample, Track, UserError
from internvl_chat.data.media.drawing import Strip
from internvl_chat.data.media.sources import content_mark, read_media_header
from internvl_chat.data.prompts.encoder import SampleEncoder, SamplePlan
from internvl_chat.data.records.tracks import boxes_at
from internvl_chat.processes import keep_inherited
from internvl_chat.vision import Vision

_T = TypeVar("_T")


def with_tracks(sample: Sample, tracks: Sequence[Track]) -> Sample:
    """The same clip and question with other tracks, under the sample's names: nothing but the boxes differs."""
    renamed = (replace(other, name=own.name) for own, other in zip(sample.tracks, tracks, strict=True))
    return replace(sample, tracks=tuple(renamed))


@dataclass(frozen=True)
class Ask:
    """One caption to be written. `id` is its own among the asks of a run; `samples` has one sample a view."""

    id: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Viewpoint:
    """How a model is shown a sample: in which prompt style and tile size, and with how many frames."""

    encoder: SampleEncoder
    num_frames: int

    def plan(self, sample: Sample) -> SamplePlan:
        """Text, boxes and frame numbers of the sample; no frame is decoded.

        Raises:
            UserError: video or boxes cannot be used.
        """
        return self.encoder.plan(sample, self.encoder.choose_frames(sample, self.num_frames, "centre"))

    def strip(self, sample: Sample, lines: Sequence[str], most_frames: int = 12) -> Strip:
        """Some of the pictures that a model is shown, with the box of the first track, over lines of text.

        Raises:
            UserError: video or boxes cannot be used.
        """
        plan = self.plan(sample)
        indices, pictures = plan.frame_indices, self.encoder.pictures(sample, plan)
        shown = np.unique(np.linspace(0, len(indices) - 1, min(len(indices), most_frames)).astype(int))
        boxes = None
        if sample.tracks:
            boxes = boxes_at(sample.tracks[0], indices[shown], read_media_header(sample), sample.source)
        return Strip([pictures[number] for number in shown], boxes, lines)


@dataclass(frozen=True, eq=False)
class Shown:
    """What a model sees of a sample: the numbers [F] of its pictures, and the boxes [F, 4] of each track there.

    Boxes are x1 y1 x2 y2 in thousandths, zeros where the object is absent. `seconds` [F] say when frames are shown;
    there are none of images, and of videos that state no rate.
    """

    frames: tuple[int, ...]
    seconds: tuple[float, ...]
    boxes: tuple[BoxArray, ...]

    @classmethod
    def of(cls, sample: Sample, view: Viewpoint) -> Shown:
        """What this view shows of the sample; no frame is decoded.

        Raises:
            UserError: its files or tracks cannot be used.
        """
        frames = view.encoder.choose_frames(sample, view.num_frames, "centre")
        header = view.encoder.header(sample)
        boxes = tuple(boxes_at(track, frames, header, sample.source) for track in sample.tracks)
        has_times = sample.video_path is not None and header.frames_per_second > 0
        seconds = header.timeline.seconds_of(frames).tolist() if has_times else ()
        return cls(tuple(frames.tolist()), tuple(seconds), boxes)

    def check_seen(self, sample: Sample) -> None:
        """See to it that the object is somewhere in what is shown: a caption without it would be of anything.

        Raises:
            UserError: it is not.
        """
        if not sample.tracks or self.boxes[0].any():
            return
        frames = ", ".join(map(str, self.frames[:8])) + (", ..." if len(self.frames) > 8 else "")
        noun = "frames" if sample.video_path else "images"
        raise UserError(
            f"{sample.video_path or sample.source}: {sample.object_name!r} is in none of the {len(self.frames)} "
            f"{noun} that are shown ({frames}): give its boxes there ('interpolate' between key frames), show more "
            "(num_frames), or ask about the whole without a track"
        )


@dataclass(frozen=True)
class PlannedAsk:
    """An ask with its prompt's number of tokens in each view.

    `pictures` is the same for asks that see the same pixels, whatever their boxes and questions; `digest` is a hash of
    all that the prompts say and show, the files of the pictures among it.
    """

    ask: Ask
    lengths: tuple[int, ...]
    pictures: tuple[object, ...]
    digest: str


@dataclass(frozen=True)
class Unreadable:
    """Asks that cannot be answered, and why."""

    ids: tuple[str, ...]
    reason: str


def plan_ask(ask: Ask, views: Sequence[Viewpoint]) -> PlannedAsk | Unreadable:
    """Read what is needed to place the ask in a batch: its text, its boxes and its video's header."""
    try:
        return ask_with_plans(ask, [view.plan(sample) for view, sample in zip(views, ask.samples, strict=True)])
    except UserError as error:
        return Unreadable((ask.id,), str(error))


def ask_with_plans(ask: Ask, plans: Sequence[SamplePlan]) -> PlannedAsk:
    """The ask with what is needed of its samples' plans, one a view.

    Raises:
        UserError: a file of its pictures cannot be read.
    """
    digest = hashlib.sha256(ask.id.encode())
    lengths: list[int] = []
    pictures: list[object] = []
    for plan, sample in zip(plans, ask.samples, strict=True):
        lengths.append(len(plan.input_ids))
        paths = [path for path in (sample.video_path, *sample.image_paths) if path]
        media = [*map(str, paths), *map(content_mark, paths)]
        painted = [boxes.tolist() for boxes in plan.painted]
        shown = json.dumps([plan.frame_indices.tolist(), plan.views, painted])
        pictures.append((*media, shown))
        marks = media[len(paths) :]
        digest.update(json.dumps([marks, plan.input_ids, shown, plan.boxes.tolist()]).encode())
    return PlannedAsk(ask, tuple(lengths), tuple(pictures), digest.hexdigest()[:16])


def _pieces(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    return (items[first : first + size] for first in range(0, len(items), size))


def plan_batches(
    planned: Sequence[PlannedAsk], *, rows: int, max_new_tokens: int, max_tokens: int, num_parts: int = 1
) -> list[list[tuple[Ask, ...]]]:
    """Put asks into batches: the asks of a clip side by side, prompts of like length together, the longest first.

    The batches follow from the arguments alone and not from what is already done, so that a run that goes on computes
    each caption in the company in which it was, or would have been, computed the first time.

    Args:
        rows: sequences that are decoded for an ask.
        max_tokens: keys and values that a batch may keep, padding included; a batch holds at least one ask.
        num_parts: ranks that the batches are dealt to; there are at least as many batches, if there are enough asks.
    Returns:
        Batches of clips of asks.
    """
    clips: dict[tuple[object, ...], list[PlannedAsk]] = {}
    for item in planned:
        clips.setdefault(item.pictures, []).append(item)

    def tokens(items: Iterable[PlannedAsk]) -> int:
        """Keys and values of these asks, each padded to the longest; an ask's rows share its prompt's."""
        costs = [sum(item.lengths) + rows * max_new_tokens * len(item.lengths) for item in items]
        return len(costs) * max(costs)

    most_asks = max(1, -(-len(planned) // num_parts))
    pieces = []
    for items in clips.values():
        fitting = max(1, max_tokens * len(items) // tokens(items))
        pieces += [list(piece) for piece in _pieces(items, min(fitting, most_asks))]
    pieces.sort(key=lambda piece: max(item.lengths for item in piece), reverse=True)

    batches: list[list[list[PlannedAsk]]] = []
    for piece in pieces:
        together = [item for other in batches[-1] for item in other] + piece if batches else piece
        if batches and len(together) <= most_asks and tokens(together) <= max_tokens:
            batches[-1].append(piece)
        else:
            batches.append([piece])
    return [[tuple(item.ask for item in piece) for piece in batch] for batch in batches]


@dataclass(frozen=True)
class ViewedPrompt:
    """One ask in one view: token ids [L], and the tensors that are its own, such as boxes."""

    input_ids: list[int]
    tensors: Vision


def shown_length(input_ids: Sequence[int], placeholder_ids: Sequence[int]) -> int:
    """Tokens of a prompt up to the last that stands for a picture; 0 where none does."""
    return max((len(input_ids) - input_ids[::-1].index(i) for i in placeholder_ids if i in input_ids), default=0)


@dataclass(frozen=True)
class ViewedClip:
    """A clip in one view: what its family's tower is shown, read once, and the prompt of each of its asks."""

    vision: Vision
    prompts: tuple[ViewedPrompt, ...]


@dataclass(frozen=True)
class EncodedClip:
    """The asks about one clip, ready for a model: `views` has one entry a view."""

    ids: tuple[str, ...]
    views: tuple[ViewedClip, ...]

    def only(self, asks: Sequence[int]) -> EncodedClip:
        """Some of the clip's asks, by their numbers."""
        views = (ViewedClip(view.vision, tuple(view.prompts[n] for n in asks)) for view in self.views)
        return EncodedClip(tuple(self.ids[n] for n in asks), tuple(views))


def encode_clip(asks: tuple[Ask, ...], views: Sequence[Viewpoint]) -> EncodedClip | Unreadable:
    """Asks that see the same pixels as tensors; the pixels are read once a view."""
    viewed = []
    try:
        for number, view in enumerate(views):
            plans = [view.plan(ask.samples[number]) for ask in asks]
            pixels = view.encoder.pixels(asks[0].samples[number], plans[0])
            viewed.append(ViewedClip(pixels, tuple(ViewedPrompt(p.input_ids, p.tensors) for p in plans)))
    except UserError as error:
        return Unreadable(tuple(ask.id for ask in asks), str(error))
    return EncodedClip(tuple(ask.id for ask in asks), tuple(viewed))


class _Clips(Dataset[EncodedClip | Unreadable]):
    def __init__(self, clips: Sequence[tuple[Ask, ...]], views: Sequence[Viewpoint]) -> None:
        self.clips, self.views = clips, views

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> EncodedClip | Unreadable:
        return encode_clip(self.clips[index], self.views)


def _as_it_is(clip: _T) -> _T:
    return clip


def decoded_ahead(
    batches: Sequence[Sequence[tuple[Ask, ...]]],
    views: Sequence[Viewpoint],
    num_workers: int,
    timeout_s: float | None = None,
) -> Iterator[list[EncodedClip | Unreadable]]:
    """The batches as tensors, in order; `num_workers` processes decode the next clips meanwhile.

    A process takes a clip at a time, so that all of them work on the batch that is waited for.

    Args:
        timeout_s: a clip that is waited for longer is unreadable; None waits for ever. Needs a process.
    """
    clips = [clip for batch in batches for clip in batch]
    decoded = _decoded(clips, views, max(1, num_workers) if timeout_s else num_workers, timeout_s)
    for batch in batches:
        yield list(islice(decoded, len(batch)))


def _decoded(
    clips: Sequence[tuple[Ask, ...]], views: Sequence[Viewpoint], num_workers: int, timeout_s: float | None
) -> Iterator[EncodedClip | Unreadable]:
    """The clips in order; behind one that took too long, new processes go on."""
    first = 0
    while first < len(clips):
        loader = DataLoader(
            _Clips(clips[first:], views),
            batch_size=None,
            num_workers=num_workers,
            collate_fn=_as_it_is,
            worker_init_fn=keep_inherited,
            timeout=timeout_s or 0,
        )
        try:
            for clip in loader:
                first += 1
                yield clip
        except RuntimeError as error:
            # The loader's own message: the error has no type of its own.
            if "timed out after" not in str(error):
                raise
            yield Unreadable(tuple(ask.id for ask in clips[first]), f"was not decoded within {timeout_s:g} s")
            first += 1
