"""What a server counts, in Prometheus' form."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Measures:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.replies = Counter("serve_replies", "Replies to chat requests", ["status"], registry=self.registry)
        self.given_up = Counter("serve_given_up", "Requests that nobody waits for any more", registry=self.registry)
        self.tokens = Counter("serve_tokens", "Tokens of answered requests", ["of"], registry=self.registry)
        self.seconds = Histogram(
            "serve_seconds", "Until a chat request was answered", registry=self.registry, buckets=_SECONDS
        )
        self.batch = Histogram(
            "serve_batch_asks", "Asks that were answered together", registry=self.registry, buckets=_BATCH_SIZES
        )

    def watch(self, name: str, about: str, value: Callable[[], float]) -> None:
        """Show a value as it is when it is asked for."""
        Gauge(name, about, registry=self.registry).set_function(value)

    def page(self) -> bytes:
        return generate_latest(self.registry)


class Measured:
    """Counts the replies of an application, and how long they take, under one path."""

    def __init__(self, app: ASGIApp, measures: Measures, path: str) -> None:
        self.app, self.measures, self.path = app, measures, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A bug of the server's is told further out, and counted here."""
        if scope["type"] != "http" or scope["path"] != self.path:
            await self.app(scope, receive, send)
            return

        is_counted = False

        async def counted(message: Message) -> None:
            nonlocal is_counted
            if message["type"] == "http.response.start":
                is_counted = True
                self.measures.replies.labels(message["status"]).inc()
            await send(message)

        with self.measures.seconds.time():
            try:
                await self.app(scope, receive, counted)
            except Exception:
                if not is_counted:
                    self.measures.replies.labels(500).inc()
                raise
