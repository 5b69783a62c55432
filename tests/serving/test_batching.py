"""Who waits is answered together with others, in turn, and once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from internvl_chat import Captioner
from internvl_chat.contracts import UserError
from internvl_chat.data.prompts.wordings import wording_named
from internvl_chat.data.records.annotations import DatasetEntry
from internvl_chat.data.records.intentvc import video_path_of
from internvl_chat.data.records.record_questions import question_sample
from internvl_chat.inference.decoding import Decoding
from internvl_chat.inference.generation import Candidate, Captioners
from internvl_chat.inference.requests import Ask, EncodedClip, PlannedAsk, ViewedPrompt, plan_ask
from internvl_chat.serving.batching import Batcher, Job
from internvl_chat.serving.desk import in_time
from internvl_chat.serving.fair_queue import FairQueue
from internvl_chat.serving.refusals import Refusal

# Of four videos.
IDS = ("circle-1", "circle-2", "cross-1", "square-1")


def test_clients_take_turns() -> None:
    queue: FairQueue[str] = FairQueue()
    for client, item in ("a1", "a2", "a3", "a4", "b1", "b2", "c1"):
        queue.push(client, client + item)
    first = [queue.pop() for _ in range(4)]
    queue.push("c", "c2")
    assert first == ["a1", "b1", "c1", "a2"]
    assert queue.take_all(lambda item: item in ("a3", "c2", "b2"), 2) == ["b2", "a3"]
    assert len(queue) == 2 and [queue.pop(), queue.pop()] == ["a4", "c2"]
    with pytest.raises(IndexError):
        queue.pop()


class Asked:
    """A batcher with the tiny model, and what it reads and writes."""

    def __init__(self, captioner: Captioner, entry: DatasetEntry, **limits: int) -> None:
        self.entry, self.view = entry, captioner.view
        self.batches: list[int] = []
        settings = {"batch_tokens": 10**6, "most_asks": 9, "num_readers": 2, **limits}
        self.batcher = Batcher(captioner, on_batch=self.batches.append, **settings)

    def job(self, video_id: str, question: str = "", client: str = "a", **decoding: Any) -> Job:
        sample = question_sample(self.entry, video_id, lambda name: question or wording_named("coordinates").asks(name))
        planned = plan_ask(Ask("", (sample,)), [self.view])
        assert isinstance(planned, PlannedAsk)
        planned = replace(planned, ask=Ask(planned.digest, (sample,)))
        answer = asyncio.get_running_loop().create_future()
        plan = self.view.plan(sample)
        prompt = ViewedPrompt(plan.input_ids, plan.tensors)
        return Job(planned, prompt, self.view, Decoding(max_new_tokens=6, **decoding), False, client, answer)

    async def answers(self, jobs: Sequence[Job]) -> list[Any]:
        for job in jobs:
            self.batcher.submit(job)
        self.batcher.start()
        try:
            return await asyncio.wait_for(asyncio.gather(*(job.answer for job in jobs), return_exceptions=True), 60)
        finally:
            self.batcher.close()


@pytest.fixture(scope="module")
def captioner(captioner_folder: Path) -> Captioner:
    return Captioner.open(captioner_folder, num_frames=3)


@pytest.fixture
def read(captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The videos whose pixels were read, one after another."""
    paths: list[Path] = []
    pixels = captioner.encoder.pixels

    def counted(sample: Any, plan: Any) -> Any:
        paths.append(sample.video_path)
        return pixels(sample, plan)

    monkeypatch.setattr(captioner.encoder, "pixels", counted)
    return paths


def test_asks_of_a_clip_share_its_frames_and_clips_a_batch(
    captioner: Captioner, shapes_entry: DatasetEntry, read: list[Path]
) -> None:
    first, second = IDS[:2]

    async def ask() -> tuple[list[int], list[Any]]:
        asked = Asked(captioner, shapes_entry)
        jobs = [asked.job(i, question) for i in (first, second) for question in ("", "Why?", "Where?", "")]
        jobs.append(asked.job(first, num_beams=2))
        return asked.batches, await asked.answers(jobs)

    batches, answers = asyncio.run(ask())
    # The question that was asked twice is answered once.
    assert sorted(batches) == [1, 6]
    assert len(read) == 3
    assert answers[0] is answers[3] and answers[4] is answers[7]
    question = question_sample(shapes_entry, first, wording_named("coordinates").asks)
    assert question.video_path is not None
    alone = captioner.caption(question.video_path, question.tracks[0], max_new_tokens=6)
    assert answers[0][0].text == alone.text
    assert len({candidates[0].text for candidates in answers}) > 3


def test_a_batch_is_no_larger_than_the_limits(captioner: Captioner, shapes_entry: DatasetEntry) -> None:
    async def ask(**limits: int) -> tuple[list[int], list[str]]:
        asked = Asked(captioner, shapes_entry, **limits)
        jobs = [asked.job(video_id, client=f"c{number % 2}") for number, video_id in enumerate(IDS * 2)]
        jobs += [asked.job(IDS[0], f"What is {number}?") for number in range(5)]
        return asked.batches, [candidates[0].text for candidates in await asked.answers(jobs)]

    together, texts = asyncio.run(ask())
    apart, same_texts = asyncio.run(ask(most_asks=2, num_readers=1))
    one_by_one, still_the_same = asyncio.run(ask(batch_tokens=1))
    assert texts == same_texts == still_the_same
    assert max(together) > 2 >= max(apart) and sum(together) == sum(one_by_one)


def test_what_cannot_be_answered_is_told_to_who_asked_and_nobody_else(
    captioner: Captioner, own_entry: DatasetEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clip that is gone when it is read, an ask that the model refuses, and a bug."""
    write = Captioners.write

    async def ask() -> list[Any]:
        asked = Asked(captioner, own_entry)
        gone, refused, fine = map(asked.job, IDS[:3])
        bug, fine_too = asked.job(IDS[3], num_beams=2), asked.job(IDS[3], num_beams=3)
        video_path_of(own_entry.root, IDS[0]).unlink()

        def failing(self: Captioners, clips: Sequence[EncodedClip], watch: Any = None) -> list[list[Candidate]]:
            if any(refused.planned.ask.id in clip.ids for clip in clips):
                raise UserError("is refused")
            if self.decoding.num_beams == 2:
                raise RuntimeError("a bug")
            return write(self, clips, watch)

        monkeypatch.setattr(Captioners, "write", failing)
        return await asked.answers([gone, refused, fine, bug, fine_too])

    gone, refused, fine, bug, fine_too = asyncio.run(ask())
    assert isinstance(gone, UserError) and "not found" in str(gone)
    assert isinstance(refused, UserError) and str(refused) == "is refused"
    assert isinstance(bug, RuntimeError)
    assert fine[0].text and fine_too[0].text and fine != fine_too


def test_who_has_left_is_not_read_for(captioner: Captioner, shapes_entry: DatasetEntry, read: list[Path]) -> None:
    async def ask() -> list[Any]:
        asked = Asked(captioner, shapes_entry)
        left, stays = asked.job(IDS[0]), asked.job(IDS[1])
        left.is_over = True
        asked.batcher.submit(left)
        return await asked.answers([stays])

    assert asyncio.run(ask())[0][0].text
    assert [path.stem for path in read] == [IDS[1]]


def test_an_answer_that_takes_too_long_is_given_up() -> None:
    with pytest.raises(Refusal, match="took too long") as refused:
        asyncio.run(in_time(asyncio.sleep(9), time.monotonic() + 0.01))
    assert (refused.value.status, refused.value.body()["error"]["type"]) == (504, "timeout_error")
