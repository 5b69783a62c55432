"""The answer to a question in OpenAI's form: whole, or as server-sent events while it is written."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from internvl_chat.inference.generation import Candidate
from internvl_chat.serving.preparing import Question

DONE = "data: [DONE]\n\n"
# What stands at the end of a text whose last letter has not come in whole.
_UNFINISHED = "\ufffd"


def event(content: Mapping[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


class Reply:
    """The reply to one question.

    Args:
        name: of the model.
    """

    def __init__(self, question: Question, name: str) -> None:
        self.question, self.name = question, name
        self.id, self.created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())

    def whole(self, candidates: Sequence[Candidate]) -> dict[str, Any]:
        """The reply with all of the answer; `shown` says which frames and boxes the model saw."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": candidate.text, "refusal": None},
                "logprobs": None,
                "finish_reason": _finish(candidate),
            }
            for index, candidate in enumerate(candidates)
        ]
        return {
            **self._head("chat.completion", choices),
            "usage": self.usage(candidates),
            "shown": self.question.shown,
        }

    def usage(self, candidates: Sequence[Candidate]) -> dict[str, int]:
        prompt, answers = self.question.planned.lengths[0], sum(candidate.num_tokens for candidate in candidates)
        return {"prompt_tokens": prompt, "completion_tokens": answers, "total_tokens": prompt + answers}

    async def events(
        self, said: asyncio.Queue[list[str] | None], answer: asyncio.Future[list[Candidate]]
    ) -> AsyncIterator[str]:
        """The answer as it is written.

        Args:
            said: what the candidates say so far, again and again; None once `answer` is there.
        """
        sent = [""] * self.question.decoding.num_candidates
        while (texts := await said.get()) is not None:
            for index, text in enumerate(texts):
                ready = text.rstrip(_UNFINISHED)
                if ready != sent[index] and ready.startswith(sent[index]):
                    yield self._piece(index, ready[len(sent[index]) :], is_first=not sent[index])
                    sent[index] = ready
        candidates = answer.result()
        for index, candidate in enumerate(candidates):
            rest = candidate.text[len(os.path.commonprefix([candidate.text, sent[index]])) :]
            if rest or not sent[index]:
                yield self._piece(index, rest, is_first=not sent[index])
        for index, candidate in enumerate(candidates):
            end: dict[str, Any] = {"index": index, "delta": {}, "logprobs": None, "finish_reason": _finish(candidate)}
            yield event({**self._head("chat.completion.chunk", [end]), "shown": self.question.shown})
        if self.question.tells_usage:
            yield event({**self._head("chat.completion.chunk", []), "usage": self.usage(candidates)})
        yield DONE

    def _piece(self, index: int, text: str, *, is_first: bool) -> str:
        delta = {"role": "assistant", "content": text} if is_first else {"content": text}
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        return event(self._head("chat.completion.chunk", [choice]))

    def _head(self, kind: str, choices: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.name, "choices": choices}


def _finish(candidate: Candidate) -> str:
    return "stop" if candidate.is_whole else "length"
