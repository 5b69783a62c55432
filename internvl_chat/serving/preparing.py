"""A request's body to a question that can wait: files opened, tracks read, its prompt laid out, no picture decoded."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from internvl_chat.api import Captioner
from internvl_chat.constants import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.prompts.tokenizer import hidden_ids
from internvl_chat.data.records.given.given_boxes import check_given_boxes
from internvl_chat.inference.decoding import Decoding
from internvl_chat.inference.requests import Ask, PlannedAsk, Shown, ViewedPrompt, Viewpoint, ask_with_plans
from internvl_chat.serving.bodies import Body
from internvl_chat.serving.chat_requests import ChatRequest, parse_request
from internvl_chat.serving.chat_samples import QuestionReader, decoding_of, in_clients_words
from internvl_chat.serving.media.media_limits import check_length
from internvl_chat.serving.media.request_files import FileSources
from internvl_chat.serving.refusals import Refusal
from internvl_chat.serving.server_limits import ServerLimits


@dataclass(frozen=True)
class Answering:
    """Under which name a model answers, with how many tokens at most, and the temperature of requests without one."""

    name: str
    max_new_tokens: int
    temperature: float


@dataclass(frozen=True)
class Question:
    """What is asked, how it is answered, and what the reply says of the pictures; nothing of the request's bulk.

    `called` says how the client called each file.
    """

    planned: PlannedAsk
    prompt: ViewedPrompt
    view: Viewpoint
    decoding: Decoding
    keep_tags: bool
    shown: dict[str, Any]
    is_streamed: bool
    tells_usage: bool
    called: Mapping[Path, str]

    @contextmanager
    def in_clients_words(self) -> Iterator[None]:
        """Errors of its answer name files as the client did, and not as the server does."""
        try:
            yield
        except Refusal:
            raise
        except UserError as error:
            raise Refusal(in_clients_words(str(error), self.called)) from error


class Preparer:
    """Understands requests to one model."""

    def __init__(self, captioner: Captioner, sources: FileSources, limits: ServerLimits, answering: Answering) -> None:
        self.view, self.sources, self.limits, self.answering = captioner.view, sources, limits, answering
        tokenizer = captioner.encoder.tokenizer
        hidden = tokenizer.convert_ids_to_tokens(sorted(hidden_ids(tokenizer)))
        self.steering = (IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER, *hidden)

    def question(self, body: Body, until: ExitStack) -> Question:
        """What a body asks; `until` is the context that its files are needed in.

        Raises:
            Refusal: it cannot be asked.
        """
        request = parse_request(body.json)
        if request.model != self.answering.name:
            raise Refusal(
                f"model: {request.model[:200]!r} is not served here, expected {self.answering.name!r}",
                status=404,
                code="model_not_found",
                param="model",
            )
        open_file = partial(self.sources.open, uploads=body.uploads, until=until)
        reader = QuestionReader(open_file, self.limits, self.steering, self.sources.root)
        sample = reader.read(request)
        num_frames = request.mm_processor_kwargs.num_frames
        view = replace(self.view, num_frames=num_frames) if num_frames else self.view
        try:
            header = view.encoder.header(sample)
            check_length(sample, header, self.limits)
            check_given_boxes(sample, header)
            plan = view.plan(sample)
            planned = ask_with_plans(Ask("", (sample,)), [plan])
            shown = Shown.of(sample, view)
            shown.check_seen(sample)
        except UserError as error:
            raise reader.told_to_client(str(error)) from error
        room = view.encoder.config.max_seq_length - planned.lengths[0]
        if room < 1:
            raise Refusal(
                f"messages: {planned.lengths[0]} tokens leave no room for an answer in this model's "
                f"{view.encoder.config.max_seq_length}: show fewer frames or images",
                code="context_length_exceeded",
                param="messages",
            )
        most_tokens = min(room, self.answering.max_new_tokens)
        return Question(
            replace(planned, ask=Ask(self._ask_id(request, planned, sample), (sample,))),
            ViewedPrompt(plan.input_ids, plan.tensors),
            view,
            decoding_of(request, most_tokens, self.answering.temperature),
            not request.skip_special_tokens,
            _told(sample, shown),
            bool(request.stream),
            bool(request.stream_options and request.stream_options.include_usage),
            reader.seen.called,
        )

    def _ask_id(self, request: ChatRequest, planned: PlannedAsk, sample: Sample) -> str:
        """The same for the same question with the same seed: samples are drawn by it, and twins share an answer."""
        seed = secrets.randbits(64) if request.seed is None and request.temperature else request.seed or 0
        paths = [path for path in (sample.video_path, *sample.image_paths) if path]
        named = " ".join([str(seed), planned.digest, *map(self.sources.mark, paths)])
        return hashlib.sha256(named.encode()).hexdigest()


def _told(sample: Sample, shown: Shown) -> dict[str, Any]:
    """What a reply says of the pictures that the model saw."""
    tracks = [
        {"name": track.name, "unit": "thousandths", "order": "xyxy", "boxes": boxes.tolist()}
        for track, boxes in zip(sample.tracks, shown.boxes, strict=True)
    ]
    return {"frames": list(shown.frames), "seconds": list(shown.seconds), "tracks": tracks}
