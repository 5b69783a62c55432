"""A real `serve` process with the tiny model, and the official client to ask it with."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from internvl_chat.commands.serve import KEY_VARIABLE
from internvl_chat.data.records.annotations import DatasetEntry
from internvl_chat.data.records.intentvc import category_of, video_path_of
from tests.helpers import ROOT

KEY = "sk-right-9c1f"
FRAMES, TOKENS = 3, 5


@dataclass(frozen=True)
class Server:
    """A running server: its address, its log, and its process."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def client(self) -> Any:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0, timeout=60)

    def post(self, **request: Any) -> Any:
        """A request of any form, as it arrives."""
        headers = {"Authorization": f"Bearer {KEY}", **request.pop("headers", {})}
        return httpx2.post(f"{self.url}/v1/chat/completions", headers=headers, timeout=60, **request)

    def connected(self, *headers: str) -> socket.socket:
        """A connection on which a chat request has begun; its body is to follow."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        peer = socket.create_connection((host, int(port)), timeout=20)
        lines = ["POST /v1/chat/completions HTTP/1.1", "Host: x", f"Authorization: Bearer {KEY}", *headers]
        peer.sendall("\r\n".join([*lines, "", ""]).encode())
        return peer

    def measured(self, name: str) -> float:
        """A number of /metrics."""
        page = httpx2.get(f"{self.url}/metrics", headers={"Authorization": f"Bearer {KEY}"}).text
        return float(next(line.split()[-1] for line in page.splitlines() if line.startswith(f"{name} ")))

    def wait_until(self, is_so: Callable[[], bool], seconds: float = 20) -> None:
        ends = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < ends, self.log.read_text()
            time.sleep(0.02)


StartServer = Callable[..., Server]


@pytest.fixture(scope="session")
def start_server(
    captioner_folder: Path, shapes_entry: DatasetEntry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartServer]:
    """Starts a server with these flags beside the usual ones; all are ended with the tests."""
    started: list[Server] = []

    def start(*flags: str) -> Server:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = tmp_path_factory.mktemp("serve") / "log.txt"
        argv = [sys.executable, "-m", "internvl_chat", "serve", "--model", captioner_folder, "--port", port]
        argv += ["--media_root", shapes_entry.root, "--num_frames", FRAMES, *flags]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), KEY_VARIABLE: f"{KEY} sk-other"}
        with log.open("wb") as file:
            process = subprocess.Popen([str(arg) for arg in argv], env=environment, stdout=file, stderr=file)
        server = Server(f"http://127.0.0.1:{port}", log, process)
        started.append(server)
        server.wait_until(lambda: process.poll() is not None or _answers(server), seconds=60)
        assert process.poll() is None, log.read_text()
        return server

    yield start
    for server in started:
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()


def _answers(server: Server) -> bool:
    try:
        return bool(httpx2.get(f"{server.url}/health").status_code == 200)
    except httpx2.TransportError:
        return False


@pytest.fixture(scope="session")
def server(start_server: StartServer) -> Server:
    """The server that most tests share; every request may ask for long answers, and few do."""
    limits = "--max_body_mb 3 --max_megapixels 2 --max_video_seconds 60 --max_video_frames 40 --max_images 3".split()
    return start_server("--max_new_tokens", "3500", "--allow_hosts", "localhost", "127.0.0.1:9", *limits)


def content(url: str, question: str | None = None, kind: str = "video_url") -> list[dict[str, Any]]:
    """The messages that show a file and ask about it."""
    parts: list[dict[str, Any]] = [{"type": kind, kind: {"url": url}}]
    if question is not None:
        parts.append({"type": "text", "text": question})
    return [{"role": "user", "content": parts}]


@dataclass(frozen=True)
class Clip:
    """A video of the shapes and its object, as a request names them."""

    path: Path
    url: str
    track: dict[str, Any]

    def asked(self, model: str, /, **more: Any) -> dict[str, Any]:
        """A request for its caption, as the client takes it."""
        showing = {"tracks": [self.track], **more.pop("showing", {})}
        extra_body = {"mm_processor_kwargs": showing, **more.pop("extra_body", {})}
        return {"model": model, "messages": content(self.url), "max_tokens": TOKENS, "extra_body": extra_body, **more}


@pytest.fixture(scope="session")
def clips(shapes_entry: DatasetEntry) -> dict[str, Clip]:
    """Clips by their ids; several show the same video."""
    from internvl_chat.boxes import load_boxes
    from internvl_chat.data.records.intentvc import boxes_path_of, object_name_of
    from internvl_chat.files import read_json

    found = {}
    for video_id in sorted(read_json(shapes_entry.root / "other_target.json")):
        path = video_path_of(shapes_entry.root, video_id)
        name = object_name_of(category_of(video_id), shapes_entry.object_names)
        boxes = load_boxes(boxes_path_of(path)).tolist()
        track = {"name": name, "boxes": boxes, "unit": "thousandths", "order": "xyxy"}
        found[video_id] = Clip(path, path.relative_to(shapes_entry.root).as_posix(), track)
    return found


@pytest.fixture(scope="session")
def model(captioner_folder: Path) -> str:
    """What the server calls the model."""
    return captioner_folder.name


@pytest.fixture(scope="session")
def clip(clips: dict[str, Clip]) -> Clip:
    return next(clip for clip in clips.values() if any(any(box) for box in clip.track["boxes"]))
