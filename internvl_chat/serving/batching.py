"""Requests that wait are answered together: those about one clip share its frames, others a batch.

Everything but decoding pictures and the model itself happens in the event loop's thread. Shape letters: R rows, T
tokens.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from internvl_chat.api import Captioner
from internvl_chat.contracts import UserError
from internvl_chat.inference.decoding import Decoding
from internvl_chat.inference.ensemble import Ensemble
from internvl_chat.inference.generation import Candidate, Captioners, caption_ends
from internvl_chat.inference.predict import written_as_fits
from internvl_chat.inference.requests import (
    EncodedClip,
    PlannedAsk,
    Unreadable,
    ViewedClip,
    ViewedPrompt,
    Viewpoint,
    encode_clip,
    plan_batches,
)
from internvl_chat.serving.fair_queue import FairQueue
from internvl_chat.vision import Vision

# How long the model waits for clips that are still being read, so that those who ask at once are answered at once.
_GATHER_S = 0.05


# What those who share a clip have in common: its pictures, and how they are answered.
_Manner = tuple[Decoding, bool]
_ClipKey = tuple[tuple[object, ...], _Manner]


@dataclass(eq=False)
class Job:
    """A request that waits for its answer.

    Args:
        prompt: what the model reads of it.
        client: whose turn it takes.
        answer: its candidates, or why there are none.
        on_texts: called in the event loop with what the candidates say so far.
        is_over: nobody waits for it any more.
    """

    planned: PlannedAsk
    prompt: ViewedPrompt
    view: Viewpoint
    decoding: Decoding
    keep_tags: bool
    client: str
    answer: asyncio.Future[list[Candidate]]
    on_texts: Callable[[list[str]], None] | None = None
    is_over: bool = False

    @property
    def manner(self) -> _Manner:
        """What those who are answered in one batch have in common."""
        return self.decoding, self.keep_tags

    @property
    def clip(self) -> _ClipKey:
        return self.planned.pictures, self.manner

    def settle(self, answer: list[Candidate] | BaseException) -> None:
        if self.answer.done() or self.is_over:
            return
        if isinstance(answer, BaseException):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


@dataclass(eq=False)
class _Clip:
    """A clip that is being read, or is read, and who asks about it; who asks the very same shares the answer."""

    manner: _Manner
    jobs: dict[str, list[Job]] = field(default_factory=dict)
    vision: Vision | None = None

    def add(self, job: Job) -> None:
        self.jobs.setdefault(job.planned.ask.id, []).append(job)

    def all_jobs(self) -> Iterator[Job]:
        return (job for jobs in self.jobs.values() for job in jobs)

    def encoded(self) -> EncodedClip:
        assert self.vision is not None
        prompts = tuple(jobs[0].prompt for jobs in self.jobs.values())
        return EncodedClip(tuple(self.jobs), (ViewedClip(self.vision, prompts),))


class Batcher:
    """Answers jobs, many at a time, clients in turn.

    Args:
        batch_tokens: keys and values that a batch may keep.
        most_asks: answered together.
        num_readers: clips that are read at a time; None is one a core, at most four.
        on_batch: told how many asks each batch has.
    """

    def __init__(
        self,
        captioner: Captioner,
        *,
        batch_tokens: int,
        most_asks: int,
        num_readers: int | None = None,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.tokenizer, self.ends = captioner.encoder.tokenizer, caption_ends(captioner.encoder)
        self.models = Ensemble([captioner.model])
        self.batch_tokens, self.most_asks, self.on_batch = batch_tokens, most_asks, on_batch
        self.num_readers = num_readers or min(4, len(os.sched_getaffinity(0)))
        self.waiting: FairQueue[Job] = FairQueue()
        self.seconds_a_batch = 1.0
        # The clips of the batch to come, in the order in which they were begun.
        self._clips: dict[_ClipKey, _Clip] = {}
        self._reading: dict[asyncio.Future[EncodedClip | Unreadable], _ClipKey] = {}
        self._changed = asyncio.Event()
        self._work: asyncio.Future[None] | None = None
        self._readers = ThreadPoolExecutor(self.num_readers, "read")
        # One thread for the model's whole life.
        self._writer = ThreadPoolExecutor(1, "write")

    def submit(self, job: Job) -> None:
        """Let a job wait for its turn; one about a clip of the batch to come joins it, if there is room."""
        if job.clip in self._clips and self._num_in_hand() < self.most_asks:
            self._clips[job.clip].add(job)
        else:
            self.waiting.push(job.client, job)
            self._read_next()

    def start(self) -> None:
        """Begin to answer, in the running event loop."""
        self._work = asyncio.ensure_future(self._run())

    @property
    def is_running(self) -> bool:
        """Whether jobs are answered; only a bug ends that before `close`."""
        return self._work is not None and not self._work.done()

    def close(self) -> None:
        """Answer no more, and leave no thread behind."""
        if self._work is not None:
            self._work.cancel()
        self._readers.shutdown(cancel_futures=True)
        self._writer.shutdown(cancel_futures=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._gathered()
            clips = self._next_batch()
            started = time.monotonic()
            self.on_batch(sum(len(clip.jobs) for clip in clips))
            writing = loop.run_in_executor(self._writer, self._write, clips, loop)
            await asyncio.wait({writing})
            self.seconds_a_batch = time.monotonic() - started
            error = writing.exception()
            found = {} if error else writing.result()
            for clip in clips:
                for job in clip.all_jobs():
                    job.settle(error or found[job.planned.ask.id])

    def _ready(self) -> list[_Clip]:
        return [clip for clip in self._clips.values() if clip.vision is not None]

    async def _gathered(self) -> None:
        """Wait until a clip is ready; then, a little, for those that are being read."""
        while not self._ready():
            self._changed.clear()
            await self._changed.wait()
        ends = time.monotonic() + _GATHER_S
        while self._reading and (left := ends - time.monotonic()) > 0:
            await asyncio.wait(self._reading, timeout=left)
            # Whoever read it takes note first.
            await asyncio.sleep(0)

    def _next_batch(self) -> list[_Clip]:
        """The clip that was begun first of those that are ready, and all that are asked about in the same manner."""
        first, *others = self._ready()
        chosen = [first, *(clip for clip in others if clip.manner == first.manner)]
        self._clips = {key: clip for key, clip in self._clips.items() if clip not in chosen}
        self._read_next()
        return chosen

    def _read_next(self) -> None:
        """Have the next clips read, as long as there are readers, and room in the batch to come."""
        loop = asyncio.get_running_loop()
        while self.waiting and len(self._reading) < self.num_readers and self._num_in_hand() < self.most_asks:
            job = self.waiting.pop()
            if job.is_over:
                continue
            if job.clip not in self._clips:
                self._clips[job.clip] = _Clip(job.manner)
                reading = loop.run_in_executor(self._readers, encode_clip, (job.planned.ask,), [job.view])
                self._reading[reading] = job.clip
                reading.add_done_callback(self._take_note)
            self._clips[job.clip].add(job)
            self._join(job.clip)

    def _join(self, key: _ClipKey) -> None:
        """Take the jobs about a clip out of the queue, whoever's turn it is: to share it costs next to nothing."""
        for job in self.waiting.take_all(lambda job: job.clip == key, self.most_asks - self._num_in_hand()):
            self._clips[key].add(job)

    def _num_in_hand(self) -> int:
        return sum(len(clip.jobs) for clip in self._clips.values())

    def _take_note(self, reading: asyncio.Future[EncodedClip | Unreadable]) -> None:
        key = self._reading.pop(reading)
        if reading.cancelled():
            return
        read = reading.exception() or reading.result()
        if isinstance(read, EncodedClip):
            self._clips[key].vision = read.views[0].vision
        else:
            error = UserError(read.reason) if isinstance(read, Unreadable) else read
            for job in self._clips.pop(key).all_jobs():
                job.settle(error)
        self._changed.set()
        self._read_next()

    def _write(self, clips: Sequence[_Clip], loop: asyncio.AbstractEventLoop) -> dict[str, list[Candidate] | UserError]:
        """The candidates of each ask, or what is wrong with it; in the model's own thread."""
        decoding, keep_tags = clips[0].manner
        captioners = Captioners(self.models, [0], self.tokenizer, self.ends, decoding, keep_tags)
        jobs = {ask_id: of_ask for clip in clips for ask_id, of_ask in clip.jobs.items()}

        def watch(ids: Sequence[str], rows_RT: torch.Tensor) -> list[bool]:
            _show(ids, rows_RT, jobs, captioners, loop)
            return [all(job.is_over for job in jobs[ask_id]) for ask_id in ids]

        def write(part: Sequence[EncodedClip]) -> list[list[Candidate]]:
            return captioners.write(part, watch)

        found: dict[str, list[Candidate] | UserError] = {}
        for batch in self._within_budget(clips, decoding):
            try:
                for written in written_as_fits([batch], write):
                    if isinstance(written, Unreadable):
                        found |= dict.fromkeys(written.ids, UserError(written.reason))
                    else:
                        found |= written
            except UserError as error:
                # It says nothing of which ask is at fault.
                found |= _one_by_one(batch, write, error)
        return found

    def _within_budget(self, clips: Sequence[_Clip], decoding: Decoding) -> Iterator[list[EncodedClip]]:
        """The asks in batches as prediction makes them."""
        encoded = [clip.encoded() for clip in clips]
        planned = [jobs[0].planned for clip in clips for jobs in clip.jobs.values()]
        for batch in plan_batches(
            planned, rows=decoding.rows, max_new_tokens=decoding.max_new_tokens, max_tokens=self.batch_tokens
        ):
            ids = {ask.id for asks in batch for ask in asks}
            parts = ((clip, [n for n, ask_id in enumerate(clip.ids) if ask_id in ids]) for clip in encoded)
            yield [clip.only(numbers) for clip, numbers in parts if numbers]


def _one_by_one(
    batch: Sequence[EncodedClip], write: Callable[[Sequence[EncodedClip]], list[list[Candidate]]], error: UserError
) -> dict[str, list[Candidate] | UserError]:
    """Each ask by itself, after `error` ended all of them together."""
    alone = [clip.only([number]) for clip in batch for number in range(len(clip.ids))]
    if len(alone) == 1:
        return {alone[0].ids[0]: error}
    found: dict[str, list[Candidate] | UserError] = {}
    for clip in alone:
        try:
            found[clip.ids[0]] = write([clip])[0]
        except UserError as own:
            found[clip.ids[0]] = own
    return found


def _show(
    ids: Sequence[str],
    rows_RT: torch.Tensor,
    jobs: Mapping[str, Sequence[Job]],
    captioners: Captioners,
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Hand those who follow their answer what it says so far; beams, which change still, are shown to nobody."""
    if captioners.decoding.num_beams > 1:
        return
    each = len(rows_RT) // len(ids)
    for number, ask_id in enumerate(ids):
        followers = [job for job in jobs[ask_id] if job.on_texts and not job.is_over]
        if followers:
            texts = captioners.texts(rows_RT[number * each : (number + 1) * each])
            for job in followers:
                assert job.on_texts is not None
                loop.call_soon_threadsafe(job.on_texts, texts)
