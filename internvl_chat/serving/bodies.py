"""The body of a request: no more of it is read than the limits allow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.types import Message, Receive

from internvl_chat.serving.media.request_files import too_large
from internvl_chat.serving.refusals import Refusal
from internvl_chat.serving.server_limits import ServerLimits

# Bodies up to this size are read at once; larger ones a few at a time, so that they do not fill the memory together.
_SMALL_BYTES = 1_000_000
_LARGE_AT_A_TIME = 4
REQUEST_FIELD = "request"


@dataclass
class Body:
    """The JSON of a request, and the files that came along by the names of their parts."""

    json: bytes
    uploads: dict[str, BinaryIO] = field(default_factory=dict)


class BodyReader:
    """Reads bodies: JSON, or a multipart form whose part `request` is JSON and whose other parts are files."""

    def __init__(self, limits: ServerLimits) -> None:
        self.limits = limits
        self._large = asyncio.Semaphore(_LARGE_AT_A_TIME)

    @asynccontextmanager
    async def reading(self, request: Request) -> AsyncIterator[Body]:
        """The body, for as long as it is needed.

        Raises:
            Refusal: it is too large, in another form than expected, or does not come in time.
        """
        most = self.limits.max_body_bytes
        stated = request.headers.get("content-length", "")
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refusal("Content-Encoding: expected a body that is not packed", status=415)
        if stated.isdecimal() and int(stated) > most:
            raise too_large(most)
        async with AsyncExitStack() as until:
            if not stated.isdecimal() or int(stated) > _SMALL_BYTES:
                await until.enter_async_context(self._large)
            try:
                body = await asyncio.wait_for(self._read(request, until), self.limits.body_seconds)
            except asyncio.TimeoutError as error:
                message = f"the request did not come in within {self.limits.body_seconds} s"
                raise Refusal(message, status=408, code="request_timeout") from error
            yield body

    async def _read(self, request: Request, until: AsyncExitStack) -> Body:
        counted = Request(request.scope, _counted(request.receive, self.limits.max_body_bytes))
        kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if kind == "application/json":
            return Body(await counted.body())
        if kind != "multipart/form-data":
            raise Refusal(f"Content-Type: is {kind[:80]}, expected application/json or multipart/form-data", status=415)
        form = await until.enter_async_context(
            counted.form(max_files=self.limits.max_images + 1, max_fields=1, max_part_size=self.limits.max_body_bytes)
        )
        uploads = {name: part for name, part in form.multi_items() if isinstance(part, UploadFile)}
        given = form.get(REQUEST_FIELD)
        if given is None:
            raise Refusal(f"the form has no part {REQUEST_FIELD!r}: expected the request's JSON there")
        json = await given.read() if isinstance(given, UploadFile) else given.encode()
        return Body(json, {name: part.file for name, part in uploads.items() if name != REQUEST_FIELD})


def _counted(receive: Receive, most_bytes: int) -> Receive:
    """The same messages, as long as their bodies are no more than so many bytes together."""
    seen = 0

    async def received() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most_bytes:
            raise too_large(most_bytes)
        return message

    return received
