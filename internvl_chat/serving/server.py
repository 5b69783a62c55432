"""A model put behind a port, until the process is told to end."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from internvl_chat.api import Captioner
from internvl_chat.inference.predict import BatchLimits
from internvl_chat.model.loading import load_config
from internvl_chat.serving.application import Keys, create_application
from internvl_chat.serving.batching import Batcher
from internvl_chat.serving.desk import Desk
from internvl_chat.serving.measures import Measures
from internvl_chat.serving.media.fetching import Fetcher
from internvl_chat.serving.media.request_files import FileSources, FileStore
from internvl_chat.serving.preparing import Answering, Preparer
from internvl_chat.serving.server_limits import ServerLimits


@dataclass(frozen=True)
class Access:
    """Who may ask, and where the files of requests may lie.

    Args:
        keys: of clients; none lets everybody ask.
        media_root: the folder that requests may name files of.
        allow_hosts: hosts that files are fetched from.
    """

    keys: Sequence[str] = ()
    media_root: Path | None = None
    allow_hosts: Sequence[str] = ()


def build_application(
    captioner: Captioner, answering: Answering, access: Access, limits: ServerLimits, batches: BatchLimits, folder: Path
) -> FastAPI:
    """The application with a model's weights loaded.

    Args:
        folder: for the files of requests, as long as they are needed.
    Raises:
        UserError: the weights cannot be used.
    """
    handle = captioner.handle
    settled = batches.beside([load_config(handle.folder)], handle.ranks)
    assert settled.batch_tokens is not None
    measures = Measures()
    batcher = Batcher(
        captioner,
        batch_tokens=settled.batch_tokens,
        most_asks=limits.max_batch,
        num_readers=batches.num_workers,
        on_batch=measures.batch.observe,
    )
    store = FileStore(folder, limits.max_body_bytes)
    sources = FileSources(store, access.media_root, Fetcher(access.allow_hosts, limits.body_seconds))
    desk = Desk(Preparer(captioner, sources, limits, answering), batcher, limits, measures)
    return create_application(desk, batcher, Keys(access.keys), measures)


def serve(
    captioner: Captioner,
    answering: Answering,
    access: Access,
    limits: ServerLimits,
    batches: BatchLimits,
    *,
    host: str,
    port: int,
) -> None:
    """Answer requests until SIGTERM or SIGINT; those that were accepted by then are answered first.

    Raises:
        UserError: the weights cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="serve-") as folder:
        application = build_application(captioner, answering, access, limits, batches, Path(folder))
        # uvicorn raises a signal again after it has heeded it: then there is nothing left to end.
        signal.signal(signal.SIGTERM, _nothing_left)
        uvicorn.run(
            application,
            host=host,
            port=port,
            server_header=False,
            timeout_graceful_shutdown=limits.body_seconds + limits.request_seconds,
        )


def _nothing_left(_signal: int, _frame: FrameType | None) -> None:
    return
