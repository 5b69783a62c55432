"""Requests a second of `serve`, against one at a time by the model's own `generate`; and a soak.

    python -m benchmarks.serve           # the embedded model, about a minute on two CPU cores
    python -m benchmarks.serve --soak    # 500 requests of 32 clients, 5 % of them broken, and SIGTERM in the middle

The clips are moving shapes of 24 frames, six of them shown; every request names a clip and a track, and is greedy, up
to 24 tokens. One at a time is the embedded model in this process, without HTTP. Clients run in this process too, on the
same cores. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psutil

from internvl_chat import Captioner
from internvl_chat.boxes import load_boxes
from internvl_chat.contracts import Sample
from internvl_chat.data.prompts.wordings import question_turn, wording_named
from internvl_chat.data.records.box_files import find_videos, write_boxes_beside
from internvl_chat.data.records.given.given_tracks import as_tracks
from internvl_chat.data.records.intentvc import boxes_path_of
from internvl_chat.data.synthetic.shapes import write_dataset
from internvl_chat.inference.generation import caption_plainly
from quickstart.steps import BASE_MODEL

# As many clips as there are clients, so that no two ask the same at once.
CLIPS, FRAMES, TOKENS = 32, 6, 24
OBJECTS, CLIPS_OF_OBJECTS = 5, 3
CLIENTS, ROUNDS = (1, 8, 32), 2
SOAK_REQUESTS, SOAK_CLIENTS, BROKEN_EVERY = 500, 32, 20
# Requests after which the server's resident memory is taken, again and again.
MEMORY_EVERY = 100


@dataclass(frozen=True)
class Asked:
    """A clip, and the track of an object in it."""

    video: Path
    track: dict[str, Any]

    def body(self, root: Path) -> dict[str, Any]:
        part = {"type": "video_url", "video_url": {"url": self.video.relative_to(root).as_posix()}}
        showing = {"tracks": [self.track], "num_frames": FRAMES}
        messages = [{"role": "user", "content": [part]}]
        return {"model": "base", "messages": messages, "max_tokens": TOKENS, "mm_processor_kwargs": showing}

    def sample(self) -> Sample:
        question = wording_named("coordinates").asks(self.track["name"])
        turns = (question_turn(f"<video>\n{question}"),)
        return Sample("asked", turns, "asked", video_path=self.video, tracks=as_tracks(self.track))


def make_asks(root: Path) -> list[Asked]:
    write_dataset(root, train_clips=CLIPS // 2, public_clips=1, private_clips=1)
    asks = []
    for video in find_videos(root)[:CLIPS]:
        write_boxes_beside(video)
        boxes = load_boxes(boxes_path_of(video)).tolist()
        asks.append(Asked(video, {"name": "object", "boxes": boxes, "unit": "thousandths", "order": "xyxy"}))
    return asks


def moved(ask: Asked, number: int) -> Asked:
    """The same clip with another object: a box that stands still somewhere."""
    corner = 50 + 150 * number
    box = [corner, corner, corner + 120, corner + 120]
    return Asked(ask.video, {**ask.track, "boxes": [box] * len(ask.track["boxes"])})


@contextmanager
def serving(root: Path, *flags: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [sys.executable, "-m", "internvl_chat", "serve", "--model", BASE_MODEL, "--media_root", root]
    argv += ["--port", str(port), "--max_requests", "64", *flags]
    process = subprocess.Popen([str(arg) for arg in argv], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        while not is_up(url):
            assert process.poll() is None, "the server does not start"
            time.sleep(0.2)
        yield url, process
    finally:
        process.terminate()
        process.wait()


def is_up(url: str) -> bool:
    try:
        return bool(httpx2.get(f"{url}/health").status_code == 200)
    except httpx2.TransportError:
        return False


@dataclass(frozen=True)
class Run:
    """Seconds in all, processor seconds of the model's process, seconds of each request, and the answers."""

    total: float
    processor: float
    seconds: Sequence[float]
    answers: Sequence[str]

    def report(self, way: str) -> float:
        """A row of the table; requests a second."""
        rate = len(self.seconds) / self.total
        middle, late = np.percentile(self.seconds, [50, 95])
        milliseconds = 1000 * self.processor / len(self.seconds)
        sys.stdout.write(f"| {way} | {rate:.1f} | {middle:.2f} | {late:.2f} | {milliseconds:.0f} |\n")
        sys.stdout.flush()
        return rate


def ask_all(url: str, process: int, bodies: Sequence[dict[str, Any]], clients: int) -> Run:
    """So many clients ask, each one thing after another."""
    queue = iter(list(enumerate(bodies)))
    seconds, answers = [0.0] * len(bodies), [""] * len(bodies)

    def client() -> None:
        with httpx2.Client(timeout=300) as session:
            for number, body in queue:
                started = time.perf_counter()
                reply = session.post(f"{url}/v1/chat/completions", json=body)
                seconds[number] = time.perf_counter() - started
                answers[number] = reply.json()["choices"][0]["message"]["content"]

    used = sum(psutil.Process(process).cpu_times()[:2])
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(client) for _ in range(clients)]:
            done.result()
    total = time.perf_counter() - started
    return Run(total, sum(psutil.Process(process).cpu_times()[:2]) - used, seconds, answers)


def one_at_a_time(captioner: Captioner, asks: Sequence[Asked]) -> Run:
    seconds, answers = [], []
    used = time.process_time()
    for ask in asks:
        started = time.perf_counter()
        answers.append(caption_plainly(captioner.model, captioner.view, ask.sample(), TOKENS))
        seconds.append(time.perf_counter() - started)
    return Run(sum(seconds), time.process_time() - used, seconds, answers)


def measure(root: Path) -> dict[str, Any]:
    asks = make_asks(root)
    objects = [moved(ask, number) for ask in asks[:CLIPS_OF_OBJECTS] for number in range(OBJECTS)]
    captioner = Captioner.open(BASE_MODEL, num_frames=FRAMES)
    one_at_a_time(captioner, asks[:2])
    sys.stdout.write(
        "| way | requests a second | p50 (s) | p95 (s) | processor ms a request |\n|---|---|---|---|---|\n"
    )
    plain, plain_objects = one_at_a_time(captioner, asks), one_at_a_time(captioner, objects)
    rate = plain.report("one at a time, `generate`")
    rate_objects = plain_objects.report(f"{OBJECTS} objects a clip, one at a time, `generate`")
    served, same = {}, []
    with serving(root) as (url, process):
        bodies = [ask.body(root) for ask in asks]
        ask_all(url, process.pid, bodies[:8], 8)
        for clients in CLIENTS:
            rounds = 1 if clients == 1 else ROUNDS
            run = ask_all(url, process.pid, bodies * rounds, clients)
            served[clients] = run.report(f"`serve`, {clients} clients")
            same += [a == b for a, b in zip(run.answers, [*plain.answers] * rounds, strict=True)]
        run = ask_all(url, process.pid, [ask.body(root) for ask in objects], OBJECTS)
        served_objects = run.report(f"{OBJECTS} objects a clip, `serve`, {OBJECTS} clients")
        same += [a == b for a, b in zip(run.answers, plain_objects.answers, strict=True)]
    return {
        **{f"ratio_{clients}": round(served[clients] / rate, 2) for clients in CLIENTS},
        "ratio_objects": round(served_objects / rate_objects, 2),
        "same_answers": f"{sum(same)} of {len(same)}",
    }


def broken(body: dict[str, Any], number: int) -> dict[str, Any]:
    """A request that cannot be answered, of one kind or another."""
    kinds: list[dict[str, Any]] = [
        {"model": "another"},
        {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "no/where.mp4"}}]}]},
        {
            "mm_processor_kwargs": {
                "tracks": [{"name": "x", "boxes": [[1, 2, 3, 4]], "unit": "pixels", "order": "xyxy"}]
            }
        },
        {"temperature": "hot"},
    ]
    return {**body, **kinds[number % len(kinds)]}


def soak(root: Path) -> dict[str, Any]:
    asks = make_asks(root)
    rng = random.Random(0)
    with serving(root) as (url, process):
        memory = psutil.Process(process.pid)
        alone = ask_all(url, process.pid, [ask.body(root) for ask in asks], 1).answers
        chosen = [rng.randrange(len(asks)) for _ in range(SOAK_REQUESTS)]
        numbers = iter(range(SOAK_REQUESTS))
        replies: list[tuple[int, str]] = [(0, "")] * SOAK_REQUESTS
        sizes: dict[int, int] = {}

        def client() -> None:
            with httpx2.Client(timeout=300) as session:
                for number in numbers:
                    body = asks[chosen[number]].body(root)
                    if number % BROKEN_EVERY == 0:
                        body = broken(body, number // BROKEN_EVERY)
                    reply = session.post(f"{url}/v1/chat/completions", json=body)
                    text = reply.json()["choices"][0]["message"]["content"] if reply.status_code == 200 else ""
                    replies[number] = (reply.status_code, text)
                    sizes[number] = memory.memory_info().rss >> 20

        with ThreadPoolExecutor(SOAK_CLIENTS) as pool:
            for done in [pool.submit(client) for _ in range(SOAK_CLIENTS)]:
                done.result()
        ended = told_to_end(url, process, [ask.body(root) for ask in asks])
    good = [n for n in range(SOAK_REQUESTS) if n % BROKEN_EVERY]
    return {
        "right": f"{sum(replies[n] == (200, alone[chosen[n]]) for n in good)} of {len(good)}",
        "refused": f"{sum(400 <= s < 500 for s, _ in replies[::BROKEN_EVERY])} of {len(replies[::BROKEN_EVERY])}",
        "mib": [sizes[n - 1] for n in range(MEMORY_EVERY, SOAK_REQUESTS + 1, MEMORY_EVERY)],
        **ended,
    }


def told_to_end(url: str, process: subprocess.Popen[bytes], bodies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """SIGTERM while so many requests are accepted: how many of them are answered."""

    def accepted() -> float:
        page = httpx2.get(f"{url}/metrics").text
        return float(next(line.split()[1] for line in page.splitlines() if line.startswith("serve_accepted ")))

    with ThreadPoolExecutor(len(bodies)) as pool:
        asked = [pool.submit(httpx2.post, f"{url}/v1/chat/completions", json=body, timeout=300) for body in bodies]
        while not accepted():
            time.sleep(0.01)
        waiting = accepted()
        process.send_signal(signal.SIGTERM)
        kinds = [reply.exception() is None and reply.result().status_code == 200 for reply in asked]
    return {"accepted_at_sigterm": int(waiting), "answered": sum(kinds), "exit_code": process.wait()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--soak", action="store_true", help="many requests, broken ones among them")
    args = parser.parse_args()
    work: Callable[[Path], dict[str, Any]] = soak if args.soak else measure
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(json.dumps(work(Path(folder) / "clips")) + "\n")


if __name__ == "__main__":
    main()
