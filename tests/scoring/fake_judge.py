"""An endpoint like OpenAI's on this machine that judges by a rule, and misbehaves as it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-secret-of-the-tests-4711"


class FakeJudge(ThreadingHTTPServer):
    """Answers each request with `reply(answer, tries)`: an HTTP status and the judge's text.

    `answer` is the text that is graded and `tries` how often it has been asked about, this time counted. Status 0 cuts
    the connection off in the middle of the body, and a text in bytes is sent as it is, as a web page. `asked` counts
    requests by answer, `done` those that got a verdict. `counts` says whether tokens are told.
    """

    daemon_threads = True

    def __init__(self, reply: Callable[[str, int], tuple[int, str | bytes]], delay_s: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply, self.delay_s = reply, delay_s
        self.counts = True
        self.asked: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.prompts: list[str] = []
        self.lock = threading.Lock()

    @property
    def api_base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @contextmanager
    def running(self) -> Iterator[FakeJudge]:
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: FakeJudge
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {KEY}":
            self._send(401, {"error": {"message": f"wrong key {self.headers['Authorization'].split()[-1]}"}})
            return
        prompt = "\n".join(message["content"] for message in body["messages"])
        answer = prompt.split("Answer to grade: ")[-1].splitlines()[0]
        with self.server.lock:
            self.server.asked[answer] += 1
            self.server.prompts.append(prompt)
            tries = self.server.asked[answer]
        time.sleep(self.server.delay_s)
        status, text = self.server.reply(answer, tries)
        if isinstance(text, bytes):
            self._send(status, text)
        elif status in (0, 200):
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            usage = {"prompt_tokens": 90, "completion_tokens": 7, "total_tokens": 97} if self.server.counts else None
            completion = {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"]}
            self._send(status, {**completion, "choices": [choice], "usage": usage})
            with self.server.lock:
                self.server.done[answer] += status == 200
        else:
            self._send(status, {"error": {"message": text}})

    def _send(self, status: int, content: dict | bytes) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        try:
            self.send_response(status or 200)
            self.send_header("Content-Type", "text/html" if data.startswith(b"<") else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if status == 0 else data)
            self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            pass
        if status == 0:
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Say nothing."""
