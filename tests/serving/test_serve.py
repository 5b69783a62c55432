"""The official `openai` client against a real server: answers are the captions of prediction, in OpenAI's form."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from PIL import Image

import eval_const
from internvl_chat import Captioner
from internvl_chat.data.records.annotations import DatasetEntry
from internvl_chat.files import read_json, write_json
from internvl_chat.inference.chat import Chat
from internvl_chat.serving.measures import Measured, Measures
from tests.serving.conftest import FRAMES, KEY, TOKENS, Clip, Server, StartServer, content

pytestmark = pytest.mark.process


def text_of(completion: Any) -> str:
    return str(completion.choices[0].message.content)


def test_served_captions_are_those_of_eval_const(
    server: Server, model: str, clips: dict[str, Clip], captioner_folder: Path, own_entry: DatasetEntry, tmp_path: Path
) -> None:
    """Asked at once, so that they are answered together."""
    (own_entry.root / "references_test.json").unlink()
    write_json(tmp_path / "ids.json", sorted(clips))
    paths = {"--meta": own_entry.annotation.with_name("meta.json"), "--ids": tmp_path / "ids.json", "--out": tmp_path}
    settings = {"--model": captioner_folder, "--num_frames": FRAMES, "--max_new_tokens": 14, "--num_workers": 0}
    argv = [str(word) for pair in {**paths, **settings}.items() for word in pair]
    assert eval_const.run(eval_const.build_parser().parse_args(argv)) == 0
    expected = read_json(tmp_path / "result.json")["captions"]
    create = server.client.chat.completions.create
    batches = server.measured("serve_batch_asks_count")
    with ThreadPoolExecutor(len(clips)) as pool:
        replies = {i: pool.submit(create, **clip.asked(model, max_tokens=14)) for i, clip in clips.items()}
    assert {i: text_of(reply.result()) for i, reply in replies.items()} == expected
    assert len(set(expected.values())) > len(expected) / 2
    assert server.measured("serve_batch_asks_count") - batches < len(clips)


def test_the_reply_says_what_the_model_saw(server: Server, model: str, clip: Clip, captioner_folder: Path) -> None:
    captioner = Captioner.open(captioner_folder, num_frames=4)
    track = {key: clip.track[key] for key in ("name", "boxes", "unit", "order")}
    caption = captioner.caption(clip.path, track, question="What moves?", max_new_tokens=TOKENS)
    messages = content(clip.url, "What moves?")
    reply = server.client.chat.completions.create(**clip.asked(model, messages=messages, showing={"num_frames": 4}))
    assert text_of(reply) == caption.text
    assert reply.shown["frames"] == list(caption.frames) and len(caption.frames) == 4
    (shown,) = reply.shown["tracks"]
    assert shown["boxes"] == caption.boxes.tolist() and caption.boxes.any()
    assert reply.shown["seconds"] == pytest.approx([frame / 12 for frame in caption.frames])
    assert reply.choices[0].finish_reason in ("stop", "length")
    assert reply.usage.completion_tokens <= TOKENS < reply.usage.prompt_tokens
    # The frames that were shown may be asked for by number; then the track's other rows do not matter.
    by_frame = {str(frame): box for frame, box in zip(reply.shown["frames"], shown["boxes"], strict=True)}
    again = clip.asked(model, messages=messages, showing={"frames": reply.shown["frames"]})
    again["extra_body"]["mm_processor_kwargs"]["tracks"] = [{**track, "boxes": by_frame}]
    assert text_of(server.client.chat.completions.create(**again)) == caption.text


def test_a_track_may_be_given_by_second_and_be_absent(server: Server, model: str, clip: Clip) -> None:
    by_second = {"name": "cup", "by": "second", "boxes": {"0": [0.1, 0.2, 0.5, 0.9]}, "unit": "unit", "order": "xyxy"}
    asked = clip.asked(
        model, showing={"tracks": [by_second, {**clip.track, "boxes": [[0] * 4] * len(clip.track["boxes"])}]}
    )
    first, absent = server.client.chat.completions.create(**asked).shown["tracks"]
    assert first["boxes"][0] == [100, 200, 500, 900] and first["boxes"][-1] == [0] * 4
    assert not np.any(absent["boxes"])


@pytest.mark.parametrize("how", [{}, {"n": 3, "temperature": 1.5, "seed": 7}, {"n": 2, "extra_body": {"num_beams": 3}}])
def test_a_stream_says_the_same(server: Server, model: str, clip: Clip, how: dict[str, Any]) -> None:
    asked = clip.asked(model, **{**how, "max_tokens": 23})
    whole = server.client.chat.completions.create(**asked)
    chunks = list(server.client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    *pieces, last = chunks
    texts = [""] * len(whole.choices)
    ends = {}
    for choice in (chunk.choices[0] for chunk in pieces):
        assert choice.index not in ends
        texts[choice.index] += choice.delta.content or ""
        if choice.finish_reason:
            ends[choice.index] = choice.finish_reason
    assert texts == [choice.message.content for choice in whole.choices]
    assert ends == {choice.index: choice.finish_reason for choice in whole.choices}
    assert last.usage == whole.usage and not last.choices
    assert pieces[-1].shown == whole.shown
    if "num_beams" not in how.get("extra_body", {}):
        assert len(pieces) > 2 * len(texts)


def test_images_and_turns_are_those_of_a_chat(
    server: Server, model: str, captioner_folder: Path, tmp_path: Path
) -> None:
    urls = []
    for number, colour in enumerate(("red", "blue")):
        Image.new("RGB", (50 + 9 * number, 40), colour).save(tmp_path / f"{number}.png")
        urls.append("data:image/png;base64," + base64.b64encode((tmp_path / f"{number}.png").read_bytes()).decode())
    chat = Chat.open(captioner_folder, max_new_tokens=TOKENS)
    first = chat.ask("What is it?", images=[tmp_path / "0.png"]).text
    second = chat.ask("And now?", images=[tmp_path / "1.png"]).text
    messages = content(urls[0], "What is it?", "image_url")
    keep = {"extra_body": {"skip_special_tokens": False}}
    reply = server.client.chat.completions.create(model=model, messages=messages, max_tokens=TOKENS, **keep)
    assert text_of(reply) == first
    messages += [{"role": "assistant", "content": first}, *content(urls[1], "And now?", "image_url")]
    reply = server.client.chat.completions.create(model=model, messages=messages, max_tokens=TOKENS, **keep)
    assert text_of(reply) == second


def test_files_come_as_data_and_as_uploads(server: Server, model: str, clip: Clip) -> None:
    named = text_of(server.client.chat.completions.create(**clip.asked(model)))
    data = "data:video/mp4;base64," + base64.b64encode(clip.path.read_bytes()).decode()
    assert text_of(server.client.chat.completions.create(**clip.asked(model, messages=content(data)))) == named
    asked = clip.asked(model, messages=content("attachment:clip"))
    asked |= asked.pop("extra_body")
    files = {"request": (None, json.dumps(asked)), "clip": ("c.mp4", clip.path.read_bytes())}
    reply = server.post(files=files)
    assert reply.json()["choices"][0]["message"]["content"] == named
    reply = server.post(files={"request": files["request"]})
    assert reply.status_code == 400 and "no file of this name" in reply.json()["error"]["message"]


def test_models_and_health(server: Server, model: str) -> None:
    assert [found.id for found in server.client.models.list()] == [model]
    assert server.client.models.retrieve(model).id == model
    with pytest.raises(openai.NotFoundError, match="expected 'tiny'"):
        server.client.models.retrieve("gpt-9")
    assert httpx2.get(f"{server.url}/health").json()["status"] == "ok"


def test_who_leaves_is_not_waited_for(server: Server, model: str, clip: Clip) -> None:
    """Whole or streamed: the model stops writing, and the next is answered at once."""
    left = server.measured("serve_given_up_total")
    client = server.client
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.4).chat.completions.create(**clip.asked(model, max_tokens=3500))
    with client.chat.completions.create(**clip.asked(model, max_tokens=3499), stream=True) as stream:
        next(iter(stream))
    started = time.monotonic()
    client.chat.completions.create(**clip.asked(model))
    server.wait_until(
        lambda: server.measured("serve_given_up_total") == left + 2 and not server.measured("serve_accepted")
    )
    assert time.monotonic() - started < 10, "3,500 tokens take longer"


def test_full_then_told_to_end(start_server: StartServer, model: str, clip: Clip) -> None:
    """Two are accepted, a third is told when to come again; at SIGTERM the two are answered, and the process ends."""
    flags = "--max_requests 2 --max_batch 1 --max_new_tokens 150 --body_seconds 1".split()
    server = start_server(*flags)
    with server.connected("Content-Length: 9") as slow:
        slow.sendall(b"{")
        assert slow.recv(4096).startswith(b"HTTP/1.1 408")
    client = server.client
    asked = clip.asked(model, max_tokens=150)
    with ThreadPoolExecutor(2) as pool:
        accepted = [pool.submit(client.chat.completions.create, **asked, seed=seed) for seed in range(2)]
        server.wait_until(lambda: server.measured("serve_accepted") == 2)
        with pytest.raises(openai.RateLimitError, match="2 requests wait already") as refused:
            client.chat.completions.create(**clip.asked(model))
        assert int(refused.value.response.headers["retry-after"]) >= 1
        server.process.send_signal(signal.SIGTERM)
        replies = [future.result() for future in accepted]
    assert all(reply.usage.completion_tokens == 150 or reply.choices[0].finish_reason == "stop" for reply in replies)
    assert server.process.wait(20) == 0
    log = server.log.read_text()
    assert "Traceback" not in log and KEY not in log


def test_a_bug_of_the_servers_is_counted() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    measures = Measures()
    nothing: Any = None
    with pytest.raises(ZeroDivisionError):
        asyncio.run(Measured(fails, measures, "/chat")({"type": "http", "path": "/chat"}, nothing, nothing))
    assert b'serve_replies_total{status="500"} 1.0' in measures.page()
