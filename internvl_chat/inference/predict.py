"""Captions for a list of asks: split over ranks, written down as they are finished, and gone on with when cut off."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from internvl_chat.contracts import UserError
from internvl_chat.inference.batch_limits import STEP_TOKENS, default_batch_tokens, default_workers
from internvl_chat.inference.decoding import Decoding
from internvl_chat.inference.ledger import ProgressFile, read_progress
from internvl_chat.inference.ranks import ALONE, Ranks
from internvl_chat.inference.requests import (
    Ask,
    EncodedClip,
    PlannedAsk,
    Unreadable,
    Viewpoint,
    decoded_ahead,
    plan_ask,
    plan_batches,
)

_T = TypeVar("_T")
WriteCandidates = Callable[[Sequence[EncodedClip]], list[list[str]]]


@dataclass(frozen=True)
class BatchLimits:
    """What decides the speed and not the text.

    Args:
        batch_tokens: keys and values that a batch may keep, of all its beams or samples; None: what there is room for.
        num_workers: processes that decode videos; None: this rank's share of the cores.
        video_timeout_s: a video that is waited for longer counts as unreadable; None waits for ever.
    """

    batch_tokens: int | None = None
    num_workers: int | None = None
    video_timeout_s: float | None = None

    @property
    def workers(self) -> int:
        return default_workers() if self.num_workers is None else self.num_workers

    def beside(self, configs: Sequence[Any], ranks: Ranks) -> BatchLimits:
        """Settled for models of these configurations."""
        if self.batch_tokens is not None:
            return self
        return replace(self, batch_tokens=default_batch_tokens(configs, ranks))


_DEFAULT_LIMITS = BatchLimits()
_OUT_OF_MEMORY = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


@dataclass
class Predictions:
    """Candidates by ask id, the caption first, in the order of the asks; and why the others have none.

    `num_kept` of the asks had theirs already, from an earlier run.
    """

    candidates: dict[str, list[str]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    num_kept: int = field(default=0, compare=False)

    @property
    def captions(self) -> dict[str, str]:
        return {ask_id: texts[0] for ask_id, texts in self.candidates.items()}


def predict(
    asks: Sequence[Ask],
    views: Sequence[Viewpoint],
    load: Callable[[], WriteCandidates],
    *,
    decoding: Decoding,
    identity: Any,
    folder: Path,
    limits: BatchLimits = _DEFAULT_LIMITS,
    ranks: Ranks = ALONE,
) -> Predictions:
    """Write the candidates of each ask, or find them in `folder`, where every finished one is kept.

    Args:
        load: gives what writes the candidates of the asks of some clips; not called where nothing is left to do.
        identity: what tells the models from others; of JSON's types. With `decoding`, and with what the prompt of an
            ask says and shows, it makes the key under which the ask's candidates are kept.
    Returns:
        On every rank, the predictions of all.
    """
    work = plan_work(asks, views, decoding, identity, folder, limits, ranks)
    num_kept = sum(key in work.done for key in work.key_of.values())
    mine = work.left[ranks.rank :: ranks.size]
    todo = work.todo(mine)
    new: dict[str, list[str]] = {}
    failed: dict[str, str] = {}
    if mine:
        # Before the weights are read: it is now that another run in this folder is told of.
        with ProgressFile(folder, ranks.rank) as file:
            write_candidates = load()
            with progress_bar(num_kept, len(todo), ranks) as bar:
                decoded = decoded_ahead(mine, views, limits.workers, limits.video_timeout_s)
                for finished in written(decoded, write_candidates, todo, file):
                    if isinstance(finished, Unreadable):
                        unread = dict.fromkeys(finished.ids, finished.reason)
                        name_failures(unread)
                        failed |= unread
                        continue
                    new |= {todo[i]: texts for i, texts in finished.items()}
                    bar.update(len(finished))
    for theirs, their_failures in ranks.gathered((new, failed)):
        work.done.update(theirs)
        work.failures.update(their_failures)
    return replace(work.predictions(asks), num_kept=num_kept)


@dataclass(frozen=True)
class Work:
    """What there is to do of a list of asks.

    Args:
        key_of: by ask id, under which key its candidates are kept.
        left: the batches in which at least one ask has none yet.
        done: candidates by key.
        failures: by ask id, why it cannot be answered.
    """

    key_of: dict[str, str]
    left: list[list[tuple[Ask, ...]]]
    done: dict[str, list[str]]
    failures: dict[str, str]

    def todo(self, batches: Iterable[Sequence[tuple[Ask, ...]]]) -> dict[str, str]:
        """Key by id of the asks in some batches that have no candidates yet."""
        ids = (ask.id for batch in batches for clip in batch for ask in clip)
        return {i: self.key_of[i] for i in ids if self.key_of[i] not in self.done}

    def predictions(self, asks: Sequence[Ask]) -> Predictions:
        """What is known of the asks; each has candidates or a reason."""
        found = {ask.id: self.done[self.key_of[ask.id]] for ask in asks if self.key_of.get(ask.id) in self.done}
        return Predictions(found, {ask.id: self.failures[ask.id] for ask in asks if ask.id not in found})


def plan_work(
    asks: Sequence[Ask],
    views: Sequence[Viewpoint],
    decoding: Decoding,
    identity: Any,
    folder: Path,
    limits: BatchLimits = _DEFAULT_LIMITS,
    ranks: Ranks = ALONE,
) -> Work:
    """Read headers and what is finished in `folder`; the same on all ranks. Arguments are those of `predict`."""
    planned = _planned_together(asks, views, ranks)
    readable = [item for item in planned if isinstance(item, PlannedAsk)]
    failures = {i: item.reason for item in planned if isinstance(item, Unreadable) for i in item.ids}
    if ranks.is_first:
        name_failures(failures)
    # What the first rank says holds for all, so that they agree on who does what.
    settings = ranks.gathered(json.dumps([identity, asdict(decoding)], sort_keys=True))[0]
    key_of = {item.ask.id: hashlib.sha256(f"{settings} {item.digest}".encode()).hexdigest()[:16] for item in readable}
    done: dict[str, list[str]] = {}
    for kept in ranks.gathered(read_progress(folder)):
        done |= kept
    batches = plan_batches(
        readable,
        rows=decoding.rows,
        max_new_tokens=decoding.max_new_tokens,
        max_tokens=limits.batch_tokens or STEP_TOKENS,
        num_parts=ranks.size,
    )
    left = [batch for batch in batches if any(key_of[ask.id] not in done for clip in batch for ask in clip)]
    return Work(key_of, left, done, failures)


def written(
    batches: Iterable[Sequence[EncodedClip | Unreadable]],
    write_candidates: WriteCandidates,
    todo: Mapping[str, str],
    file: ProgressFile,
) -> Iterator[dict[str, list[str]] | Unreadable]:
    """The candidates by id of the asks in `todo` (key by id), on the disk before they are given."""
    for finished in written_as_fits(batches, write_candidates):
        if isinstance(finished, Unreadable):
            yield finished
            continue
        fresh = {ask_id: texts for ask_id, texts in finished.items() if ask_id in todo}
        file.append({"key": todo[i], "id": i, "candidates": texts} for i, texts in fresh.items())
        yield fresh


def _planned_together(asks: Sequence[Ask], views: Sequence[Viewpoint], ranks: Ranks) -> list[PlannedAsk | Unreadable]:
    """Every ask's plan, the same on all ranks even where not all of them can read the same files; each makes a share.

    The shares are stretches of the list, since the asks of a clip follow one another and share its header.
    """
    size = -(-len(asks) // ranks.size)
    mine = [plan_ask(ask, views) for ask in asks[ranks.rank * size : (ranks.rank + 1) * size]]
    return [item for part in ranks.gathered(mine) for item in part]


def progress_bar(num_done: int, num_todo: int, ranks: Ranks) -> tqdm:
    """Progress with the time that is left, of the first rank: the others have as much to do."""
    return tqdm(
        total=num_done + num_todo,
        initial=num_done,
        desc=f"rank 1 of {ranks.size}" if ranks.size > 1 else None,
        unit="caption",
        # A terminal is redrawn twice a second; a log gets a line a minute.
        mininterval=0.5 if sys.stderr.isatty() else 60.0,
        disable=not ranks.is_first,
    )


def name_failures(failures: Mapping[str, str]) -> None:
    """Tell of asks that cannot be answered, without disturbing the progress bar."""
    for ask_id, reason in failures.items():
        tqdm.write(f"error: {ask_id}: {reason}", file=sys.stderr)


def written_as_fits(
    batches: Iterable[Sequence[EncodedClip | Unreadable]], write: Callable[[Sequence[EncodedClip]], list[_T]]
) -> Iterator[dict[str, _T] | Unreadable]:
    """What is written of each ask, by its id, as it is finished.

    A batch that does not fit in memory is halved, and so are the next.
    """
    most_asks = None
    for batch in batches:
        yield from (clip for clip in batch if isinstance(clip, Unreadable))
        waiting = [[clip for clip in batch if isinstance(clip, EncodedClip)]]
        while waiting:
            clips = waiting.pop(0)
            num_asks = sum(len(clip.ids) for clip in clips)
            if not num_asks:
                continue
            if most_asks is not None and num_asks > most_asks:
                waiting[:0] = _halves(clips)
                continue
            texts = _written_or_none(clips, write)
            if texts is not None:
                yield dict(zip((ask_id for clip in clips for ask_id in clip.ids), texts, strict=True))
            elif num_asks > 1:
                most_asks = num_asks // 2
                tqdm.write(f"out of memory with {num_asks} captions at a time: going on with {most_asks}", sys.stderr)
                waiting.insert(0, clips)
            else:
                yield Unreadable(clips[0].ids, "does not fit in memory alone: lower --num_frames, beams or candidates")


def _written_or_none(
    clips: Sequence[EncodedClip], write: Callable[[Sequence[EncodedClip]], list[_T]]
) -> list[_T] | None:
    """None if memory ran out; what the failed call held is free again by then."""
    try:
        return write(clips)
    except torch.OutOfMemoryError:
        pass
    except RuntimeError as error:
        # What torch raises without a GPU has no type of its own, nor what libraries raise that found no workspace.
        if not any(words in str(error) for words in _OUT_OF_MEMORY):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def _halves(clips: Sequence[EncodedClip]) -> list[list[EncodedClip]]:
    """The asks of these clips in two parts, one after the other."""
    middle = sum(len(clip.ids) for clip in clips) // 2
    first: list[EncodedClip] = []
    second: list[EncodedClip] = []
    for clip in clips:
        room = min(max(0, middle - sum(len(c.ids) for c in first)), len(clip.ids))
        first += [clip.only(range(room))] if room else []
        second += [clip.only(range(room, len(clip.ids)))] if room < len(clip.ids) else []
    return [first, second]


def fail_unless_any(predictions: Predictions) -> None:
    """Stop where nothing could be captioned at all: then the dataset is at fault and not a video.

    Raises:
        UserError: no ask has a caption.
    """
    if not predictions.candidates and predictions.failures:
        ask_id, reason = next(iter(predictions.failures.items()))
        raise UserError(f"none of {len(predictions.failures)} videos can be captioned, such as {ask_id}: {reason}")
