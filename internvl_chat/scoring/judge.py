"""Open answers judged by a language model behind an OpenAI-compatible endpoint, each once, however often it starts."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import openai

from internvl_chat.contracts import UserError
from internvl_chat.journal import Journal
from internvl_chat.scoring.answer_files import AnswerLine
from internvl_chat.scoring.judge_questions import JudgeQuestion, Verdict
from internvl_chat.scoring.significance import Interval, mean_interval, share_interval

# Requests that fail one after another, each after its own retries, before the endpoint counts as gone.
MOST_FAILURES_IN_A_ROW = 8
# A verdict takes a dozen tokens; a judge that thinks aloud takes some more.
MAX_TOKENS = 512
OPENAI_BASE = "https://api.openai.com/v1"


class NoCompletionError(Exception):
    """What an endpoint sent as a success is no chat completion, so it is no judgement either."""


@dataclass(frozen=True)
class JudgeSettings:
    """Which judge is asked, and how.

    Args:
        api_base: the endpoint; None is OpenAI's own, whatever OPENAI_BASE_URL says.
        key_variable: the environment variable that holds the key. It is read there and nowhere kept.
        in_flight: requests at a time.
        retries: further tries of a request that failed, with growing waits.
        prices: dollars a million tokens, read and written; None leaves the cost out.
    """

    model: str
    api_base: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    in_flight: int = 8
    retries: int = 5
    timeout_s: float = 60.0
    prices: tuple[float, float] | None = None


@dataclass(frozen=True)
class Judged:
    """One answer that the judge replied to; `verdict` is None where its reply cannot be read."""

    verdict: Verdict | None
    reply: str
    tokens_read: int
    tokens_written: int
    date: str


@dataclass
class Judgements:
    """What came of a set of answers: verdicts by place, and the places without an answer or a reply."""

    judged: dict[int, Judged] = field(default_factory=dict)
    not_answered: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)


def judge_answers(
    lines: Sequence[AnswerLine],
    question: JudgeQuestion,
    settings: JudgeSettings,
    progress: Path,
    on_item: Callable[[], object] = lambda: None,
) -> Judgements:
    """Ask the judge about each answer that is not yet in `progress`; an answer that was not given is not asked about.

    Raises:
        UserError: no key, a request that can never succeed, or an endpoint that is gone; what was judged is kept.
    """
    client, hide = _client(settings)
    result = Judgements()
    with Journal(progress) as journal:
        todo: dict[int, list[dict[str, str]]] = {}
        keys = _keys(lines, question, settings)
        for place, line in enumerate(lines):
            if keys[place] in journal.done:
                result.judged[place] = _judged(journal.done[keys[place]], question)
            elif not all(line.texts[name].strip() for name in question.fields.answers):
                result.not_answered.append(place)
            else:
                todo[place] = question.messages(line)
                continue
            on_item()
        noting = Lock()

        def asked_and_noted(place: int) -> dict[str, Any]:
            # Whoever asked notes the reply before asking again: a kill costs what is in flight and no more, and what
            # was under way when a run ends early is kept, since it is paid for.
            kept = _ask(client, settings.model, todo[place])
            with noting:
                journal.note(keys[place], kept)
            return kept

        pool = ThreadPoolExecutor(settings.in_flight)
        asked = {pool.submit(asked_and_noted, place): place for place in todo}
        try:
            failures_in_a_row = 0
            for request in as_completed(asked):
                place = asked[request]
                try:
                    kept = request.result()
                except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
                    raise UserError(
                        f"the judge at {client.base_url} refuses requests: {hide(str(error))}; "
                        + _remedy(error, settings)
                    ) from None
                except (openai.APIError, NoCompletionError) as error:
                    # Some are about one answer alone, such as one that a filter of contents does not let pass.
                    result.failed[place] = f"{hide(_reason(error)):.300}"
                    failures_in_a_row += 1
                    if failures_in_a_row == MOST_FAILURES_IN_A_ROW:
                        raise UserError(
                            f"the judge at {client.base_url} failed {failures_in_a_row} times in a row, last with: "
                            f"{result.failed[place]}; when it is mended, start again to go on from here"
                        ) from None
                else:
                    failures_in_a_row = 0
                    result.judged[place] = _judged(kept, question)
                on_item()
        finally:
            pool.shutdown(cancel_futures=True)
    return result


def _client(settings: JudgeSettings) -> tuple[openai.OpenAI, Callable[[str], str]]:
    """The client, and what takes the key out of a message: servers like to repeat it."""
    key = os.environ.get(settings.key_variable, "")
    if not key:
        raise UserError(
            f"the judge's key is expected in the environment variable {settings.key_variable}; an endpoint that needs "
            "none takes any text"
        )
    if not re.fullmatch(r"[!-~]+", key):
        raise UserError(
            f"the judge's key in the environment variable {settings.key_variable} holds a space, a line break or a "
            "letter that no request can carry: expected the key alone"
        )
    base = settings.api_base or OPENAI_BASE
    if urlsplit(base).scheme not in ("http", "https") or not urlsplit(base).netloc:
        raise UserError(f"--api_base {base}: expected a URL, such as http://localhost:8000/v1")
    if "@" in urlsplit(base).netloc:
        raise UserError(
            "--api_base holds a name or a password, which the result would keep: leave it out, and give the key in the "
            f"environment variable {settings.key_variable}"
        )
    client = openai.OpenAI(api_key=key, base_url=base, timeout=settings.timeout_s, max_retries=settings.retries)
    return client, lambda text: text.replace(key, f"${settings.key_variable}")


def _remedy(error: openai.APIStatusError, settings: JudgeSettings) -> str:
    if isinstance(error, openai.NotFoundError):
        return f"--api_base mostly ends in /v1, and it must serve a model called {settings.model!r}"
    return f"expected its key in the environment variable {settings.key_variable}, --key_variable names another"


def _reason(error: Exception) -> str:
    """What failed; of a connection also why, which its message leaves out."""
    return f"{error} ({error.__cause__})" if isinstance(error, openai.APIConnectionError) else str(error)


def _ask(client: openai.OpenAI, model: str, messages: list[Any]) -> dict[str, Any]:
    response = client.chat.completions.with_raw_response.create(
        model=model, messages=messages, temperature=0, max_tokens=MAX_TOKENS
    )
    try:
        completion = response.parse()
        reply, usage = completion.choices[0].message.content or "", completion.usage
    except (ValueError, TypeError, AttributeError, IndexError):
        # A page of the server's, or an error that is sent as if it were none.
        raise NoCompletionError(f"it sent no chat completion, but {' '.join(response.text.split())}") from None
    return {
        "reply": reply,
        "tokens_read": (usage.prompt_tokens or 0) if usage else 0,
        "tokens_written": (usage.completion_tokens or 0) if usage else 0,
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def _judged(kept: Mapping[str, Any], question: JudgeQuestion) -> Judged:
    return Judged(question.verdict(kept["reply"]), **kept)


def _keys(lines: Sequence[AnswerLine], question: JudgeQuestion, settings: JudgeSettings) -> list[str]:
    """What tells each judgement from any other; of equal answers the first, second, ... are told apart."""
    seen: Counter[str] = Counter()
    keys = []
    base = settings.api_base and settings.api_base.rstrip("/")
    for line in lines:
        said = json.dumps([line.id, question.messages(line), settings.model, base])
        keys.append(hashlib.sha256(f"{said} {seen[said]}".encode()).hexdigest())
        seen[said] += 1
    return keys


@dataclass(frozen=True)
class JudgeScores:
    """What judgements come to. Every answer is in the denominators: one that was not given, or whose judgement failed
    or cannot be read, is wrong and has no points.

    `accuracy` is None where right and wrong is not asked for. `of_parsed` has both scores over the readable judgements
    alone, as the benchmarks' own scripts have them. Of `uncounted` replies the endpoint did not tell the tokens; the
    cost is not known then.
    """

    answers: int
    parsed: int
    not_answered: int
    failed: int
    unparsed: tuple[str, ...]
    accuracy: float | None
    accuracy_interval: Interval | None
    mean_score: float
    mean_score_interval: Interval
    of_parsed: Mapping[str, float]
    tokens_read: int
    tokens_written: int
    uncounted: int
    cost_dollars: float | None
    dates: tuple[str, ...]


def score_judgements(
    lines: Sequence[AnswerLine],
    question: JudgeQuestion,
    result: Judgements,
    settings: JudgeSettings,
    resamples: int = 1000,
    seed: int = 0,
) -> JudgeScores:
    """What judgements come to, with the interval of the mean by a bootstrap of `resamples`."""
    verdicts = {place: one.verdict for place, one in result.judged.items() if one.verdict is not None}
    points = [verdicts[place].score if place in verdicts else 0.0 for place in range(len(lines))]
    right = sum(bool(verdict.is_right) for verdict in verdicts.values())
    of_parsed = {"mean_score": sum(points) / len(verdicts)} if verdicts else {}
    if verdicts and question.asks_right:
        of_parsed["accuracy"] = right / len(verdicts)
    read = sum(one.tokens_read for one in result.judged.values())
    written = sum(one.tokens_written for one in result.judged.values())
    # Every request is read, so that 0 is no count.
    uncounted = sum(one.tokens_read == 0 for one in result.judged.values())
    cost = None
    if settings.prices is not None and not uncounted:
        cost = (read * settings.prices[0] + written * settings.prices[1]) / 1e6
    return JudgeScores(
        answers=len(lines),
        parsed=len(verdicts),
        not_answered=len(result.not_answered),
        failed=len(result.failed),
        unparsed=tuple(lines[place].id for place in sorted(result.judged.keys() - verdicts.keys())),
        accuracy=right / len(lines) if question.asks_right else None,
        accuracy_interval=share_interval(right, len(lines)) if question.asks_right else None,
        mean_score=sum(points) / len(lines),
        mean_score_interval=mean_interval(points, resamples, seed),
        of_parsed=of_parsed,
        tokens_read=read,
        tokens_written=written,
        uncounted=uncounted,
        cost_dollars=cost,
        dates=tuple(sorted({one.date for one in result.judged.values()})),
    )


def report_of(name: str, question: JudgeQuestion, scores: JudgeScores, settings: JudgeSettings) -> dict[str, Any]:
    """The result as JSON, with who judged, when, and what was asked; the key is not in it."""
    names = [*(spellings[0] for spellings in question.fields.asked), *question.fields.answers]
    blank = AnswerLine("", "", dict.fromkeys(names, "..."), ("...",))
    asked = {
        "model": settings.model,
        "api_base": settings.api_base or OPENAI_BASE,
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
    }
    return {"judgement": name, "judge": {**asked, "prompt": question.messages(blank)}, **asdict(scores)}
