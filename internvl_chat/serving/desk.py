"""The way of one chat request: accepted, read, asked, and answered at once or while the answer is written."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from internvl_chat.inference.generation import Candidate
from internvl_chat.serving.batching import Batcher, Job
from internvl_chat.serving.bodies import BodyReader
from internvl_chat.serving.measures import Measures
from internvl_chat.serving.preparing import Preparer, Question
from internvl_chat.serving.refusals import Refusal
from internvl_chat.serving.replies import Reply, event
from internvl_chat.serving.server_limits import ServerLimits

_T = TypeVar("_T")
# The longest that a client is told to stay away, in seconds.
_LONGEST_WAIT_S = 60


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class Desk:
    """Takes chat requests to the batcher, and their answers back."""

    def __init__(self, preparer: Preparer, batcher: Batcher, limits: ServerLimits, measures: Measures) -> None:
        self.preparer, self.batcher, self.limits, self.measures = preparer, batcher, limits, measures
        self.bodies = BodyReader(limits)
        self.num_accepted = 0

    async def answer(self, request: Request, client: str) -> Response:
        """The reply to a request.

        Args:
            client: whose turn it takes.
        Raises:
            Refusal: there is none.
            ClientGone: nobody would read it.
        """
        ends = time.monotonic() + self.limits.request_seconds
        with ExitStack() as until:
            until.enter_context(self._accepted())
            question = await self._understood(request, until)
            reply = Reply(question, self.preparer.answering.name)
            job = _job(question, client)
            until.callback(self._leave, job)
            if not question.is_streamed:
                self.batcher.submit(job)
                with question.in_clients_words():
                    candidates = await _unless_gone(request, in_time(job.answer, ends))
                self._count(reply, candidates)
                return JSONResponse(reply.whole(candidates))
            events = self._events(reply, job, ends)
            # As long as nothing is sent, an error has a status of its own.
            first = await _unless_gone(request, anext(events))
            return _Stream(first, events, until.pop_all())

    async def _understood(self, request: Request, until: ExitStack) -> Question:
        """The body is let go here: it may be large, and the answer may take long."""
        async with self.bodies.reading(request) as body:
            return await run_in_threadpool(self.preparer.question, body, until)

    @contextmanager
    def _accepted(self) -> Iterator[None]:
        if self.num_accepted >= self.limits.max_requests:
            rounds = self.num_accepted / self.limits.max_batch
            raise Refusal(
                f"{self.num_accepted} requests wait already, the most that this server takes: try again later",
                status=429,
                code="rate_limit_exceeded",
                retry_after_s=min(_LONGEST_WAIT_S, math.ceil(rounds * self.batcher.seconds_a_batch)),
            )
        self.num_accepted += 1
        try:
            yield
        finally:
            self.num_accepted -= 1

    def _leave(self, job: Job) -> None:
        job.is_over = True
        if not job.answer.done() or job.answer.cancelled():
            self.measures.given_up.inc()

    def _count(self, reply: Reply, candidates: list[Candidate]) -> None:
        usage = reply.usage(candidates)
        self.measures.tokens.labels("prompts").inc(usage["prompt_tokens"])
        self.measures.tokens.labels("answers").inc(usage["completion_tokens"])

    async def _events(self, reply: Reply, job: Job, ends: float) -> AsyncIterator[str]:
        said: asyncio.Queue[list[str] | None] = asyncio.Queue()
        job.on_texts = said.put_nowait
        job.answer.add_done_callback(lambda _: said.put_nowait(None))
        self.batcher.submit(job)
        events = reply.events(said, job.answer)
        with reply.question.in_clients_words():
            while (piece := await in_time(anext(events, None), ends)) is not None:
                yield piece
        self._count(reply, job.answer.result())


def _job(asked: Question, client: str) -> Job:
    answer = asyncio.get_running_loop().create_future()
    return Job(asked.planned, asked.prompt, asked.view, asked.decoding, asked.keep_tags, client, answer)


class _Stream(StreamingResponse):
    """Events as they come; what the request holds is let go when the last one is sent, or the client leaves."""

    def __init__(self, first: str, events: AsyncIterator[str], until: ExitStack) -> None:
        super().__init__(
            self._all(first, events), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )
        self.until = until

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.until:
            await super().__call__(scope, receive, send)

    async def _all(self, first: str, events: AsyncIterator[str]) -> AsyncIterator[str]:
        yield first
        try:
            async for piece in events:
                yield piece
        except Refusal as refusal:
            yield event(refusal.body())


async def in_time(work: Awaitable[_T], ends: float) -> _T:
    """What work gives.

    Raises:
        Refusal: it is not done by `ends`.
    """
    try:
        return await asyncio.wait_for(work, max(0.0, ends - time.monotonic()))
    except asyncio.TimeoutError as error:
        raise Refusal(
            "the answer took too long: ask for less, or try again later", status=504, code="timeout"
        ) from error


async def _unless_gone(request: Request, work: Awaitable[_T]) -> _T:
    """What work gives.

    Raises:
        ClientGone: the client left before.
    """
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        working.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
