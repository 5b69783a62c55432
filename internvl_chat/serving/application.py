"""The routes of the server, and who may use them."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from internvl_chat.contracts import UserError
from internvl_chat.serving.batching import Batcher
from internvl_chat.serving.desk import ClientGone, Desk
from internvl_chat.serving.measures import Measured, Measures
from internvl_chat.serving.refusals import Refusal, error_body

CHAT_PATH = "/v1/chat/completions"
# What nginx logs for a client that left; nobody receives it.
_CLIENT_GONE = 499


class Keys:
    """The keys that requests may carry; without any, everybody may ask."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = [key.encode() for key in keys]

    def client(self, request: Request) -> str:
        """Who asks: the holder of a key, or an address where there are no keys.

        Raises:
            Refusal: none of the keys came with the request.
        """
        if not self.keys:
            return request.client.host if request.client else ""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # All are compared, so that the time tells nothing of them.
        matches = [hmac.compare_digest(given.strip().encode(), key) for key in self.keys]
        if scheme.lower() != "bearer" or not any(matches):
            raise Refusal(
                "no valid API key: expected 'Authorization: Bearer KEY' with a key of this server",
                status=401,
                code="invalid_api_key",
            )
        return hashlib.sha256(self.keys[matches.index(True)]).hexdigest()


def create_application(desk: Desk, batcher: Batcher, keys: Keys, measures: Measures) -> FastAPI:
    """The ASGI application; its lifespan is the batcher's."""

    async def admitted(request: Request) -> None:
        request.state.client = keys.client(request)

    router = APIRouter(dependencies=[Depends(admitted)])
    name, started = desk.preparer.answering.name, int(time.time())
    model = {"id": name, "object": "model", "created": started, "owned_by": "internvl_chat"}

    @router.post(CHAT_PATH)
    async def chat(request: Request) -> Response:
        return await desk.answer(request, request.state.client)

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model]}

    @router.get("/v1/models/{model_name:path}")
    async def one_model(model_name: str) -> dict[str, Any]:
        if model_name != name:
            raise Refusal(f"{model_name!r} is not served here, expected {name!r}", status=404, code="model_not_found")
        return model

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(measures.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    # No pages about the interface: theirs load scripts from other hosts.
    application = FastAPI(lifespan=_lifespan(batcher), docs_url=None, redoc_url=None, openapi_url=None)

    @application.get("/health")
    async def health() -> Response:
        is_up = batcher.is_running
        return JSONResponse({"status": "ok" if is_up else "failed", "model": name}, 200 if is_up else 503)

    application.include_router(router)
    application.add_middleware(Measured, measures=measures, path=CHAT_PATH)
    _tell_errors(application)
    measures.watch(
        "serve_accepted", "Requests that are being read, wait, or are being answered", lambda: desk.num_accepted
    )
    measures.watch("serve_waiting", "Requests that wait to be read for a batch", lambda: len(batcher.waiting))
    return application


def _lifespan(batcher: Batcher) -> Any:
    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        batcher.close()

    return running


def _tell_errors(application: FastAPI) -> None:
    """Every error in OpenAI's form."""

    @application.exception_handler(Refusal)
    async def refused(_: Request, error: Refusal) -> Response:
        return JSONResponse(error.body(), error.status, error.headers)

    @application.exception_handler(UserError)
    async def unusable(_: Request, error: UserError) -> Response:
        return JSONResponse(error_body(str(error), 400), 400)

    @application.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        return JSONResponse(error_body(error.detail, error.status_code), error.status_code, error.headers)

    @application.exception_handler(ClientGone)
    @application.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: Exception) -> Response:
        return Response(status_code=_CLIENT_GONE)

    @application.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return JSONResponse(error_body("the server failed; its log says how", 500), 500)
