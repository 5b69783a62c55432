"""A conversation with a model about images or a video.

chat = Chat.open("work_dirs/run")
answer = chat.ask("Where is the red circle?", images=["a.png"])
chat.draw(answer).save("boxes.png")
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedConfig, PreTrainedModel, TextStreamer

from internvl_chat.boxes import is_absent
from internvl_chat.constants import IMAGE_PLACEHOLDER, MAX_NEW_TOKENS, VIDEO_PLACEHOLDER
from internvl_chat.contracts import Sample, Track, Turn, UserError
from internvl_chat.data.media.boxed_pictures import BoxedPicture, boxed_sheet
from internvl_chat.data.media.given_clips import GivenClip, GivenPicture, clip_path, picture_path
from internvl_chat.data.media.sources import check_kind, read_media_header
from internvl_chat.data.prompts.encoder import SampleEncoder, SamplePlan
from internvl_chat.data.prompts.tokenizer import answer_text, hidden_ids
from internvl_chat.data.prompts.wordings import question_turn
from internvl_chat.data.records.given.given_boxes import check_given_boxes
from internvl_chat.data.records.tracks import boxes_at
from internvl_chat.families import family_of
from internvl_chat.grounding import LabelledBox
from internvl_chat.inference.generation import caption_ends, settings_aside
from internvl_chat.inference.handle import ModelHandle, open_model
from internvl_chat.inference.requests import Shown, Viewpoint
from internvl_chat.scoring.box_answers import parse_boxes
from internvl_chat.vision import Vision, moved

logger = logging.getLogger(__name__)

_NEW = Sample("question", (), "the conversation")
_BOX_UNUSED = (
    "the box changes nothing in this answer: the model has no box adapters, and the question names no coordinates; "
    "ask IntentVCNet's question (--prompt_form coordinates), or leave the box out"
)


@dataclass(frozen=True)
class Answer:
    """What the model wrote, the boxes in it, and the conversation up to it as the model saw it."""

    text: str
    boxes: tuple[LabelledBox, ...]
    sample: Sample
    plan: SamplePlan

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"{self.sample.object_name or 'answer'}: {self.text}"


def below_images(question: str, count: int, num_before: int = 0) -> str:
    """A question with the placeholders of its images before it, numbered where the conversation has several.

    Args:
        num_before: images that the conversation showed already.
    """
    if count == 1 and not num_before:
        return f"{IMAGE_PLACEHOLDER}\n{question}"
    lines = (f"Image-{num_before + number}: {IMAGE_PLACEHOLDER}" for number in range(1, count + 1))
    return "\n".join([*lines, question])


class Chat:
    """Questions and answers one after another; the model sees all of them.

    Args:
        num_frames: frames shown of a video; None is what its prompt configuration says.
        max_new_tokens: longest answer.
        temperature: above 0 answers are sampled; 0 is greedy.
        model: the weights, where they are read already.
    """

    def __init__(
        self,
        opened: ModelHandle,
        *,
        num_frames: int | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float = 0.0,
        model: PreTrainedModel | None = None,
    ) -> None:
        self.model, self.encoder = model or opened.load(), opened.encoder
        self.num_frames = num_frames or opened.encoder.config.num_frames
        self.settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": temperature > 0}
        if temperature > 0:
            self.settings["temperature"] = temperature
        self.reset()

    @classmethod
    def open(cls, model: str | Path, **settings: Any) -> Chat:
        """A chat with a base, a training checkpoint or a merged model; `settings` are those of `Chat`.

        Raises:
            UserError: it cannot be loaded.
        """
        return cls(open_model(model), **settings)

    def reset(self) -> None:
        """Forget the conversation, pictures included."""
        self.conversation = _NEW

    def ask(
        self,
        question: str,
        *,
        images: GivenPicture | Sequence[GivenPicture] = (),
        video: GivenClip | None = None,
        tracks: Sequence[Track] = (),
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """The model's answer; it becomes part of the conversation.

        Args:
            images: one or several, shown with this question: paths, Pillow's images or arrays [H, W, 3]. `<image>` in
                the question says where each one stands; by itself each comes before the question.
            video: shown with the first question: a path, or frames, as `clip_path` takes them.
            tracks: the objects that the conversation is about, with their boxes in the images or the video.
            on_text: called with every piece of the answer as it is written.
        Raises:
            UserError: a file cannot be used, or pictures and questions do not go together; nothing was asked then.
        """
        if not isinstance(question, str):
            raise UserError(f"a question given as {type(question).__name__}: expected a text")
        alone = isinstance(images, str | Path | Image.Image) or getattr(images, "ndim", 0) == 3
        paths = [self._path(image, picture_path) for image in ([images] if alone else images)]
        sample = self._with_question(question, paths, None if video is None else self._path(video, clip_path), tracks)
        check_given_boxes(sample)
        encoder = self.encoder
        if tracks:
            Shown.of(sample, Viewpoint(encoder, self.num_frames)).check_seen(sample)
        plan = encoder.plan(sample, encoder.choose_frames(sample, self.num_frames, "centre"))
        if tracks and not uses_box(encoder, sample, plan, self.model.config):
            logger.warning(_BOX_UNUSED)
        text = self._write(plan, {**encoder.pixels(sample, plan), **plan.tensors}, on_text)
        self.conversation = replace(sample, turns=(*sample.turns, Turn("gpt", text)))
        return Answer(text, parse_boxes(text).boxes, sample, plan)

    def draw(self, answer: Answer) -> Image.Image:
        """The pictures of an answer with the boxes given to the model (blue) and those it wrote (orange).

        An answer does not say which of several pictures its boxes belong to, so they are drawn into all.

        Raises:
            UserError: there are no pictures in the conversation, or they cannot be read any more.
        """
        sample, plan = answer.sample, answer.plan
        if not len(plan.frame_indices):
            raise UserError("the conversation has no pictures to draw boxes into: give an image or a video")
        header = read_media_header(sample)
        tracks = [(track.name, boxes_at(track, plan.frame_indices, header, sample.source)) for track in sample.tracks]
        noun = "image" if sample.image_paths else "frame"
        pages = []
        pictures = self.encoder.pictures(sample, plan)
        for number, (index, picture) in enumerate(zip(plan.frame_indices.tolist(), pictures, strict=True)):
            given = [
                LabelledBox(name, tuple(boxes[number].tolist()))
                for name, boxes in tracks
                if not is_absent(boxes[number])
            ]
            caption = f"{noun} {index + 1}: {len(given)} given (blue), {len(answer.boxes)} answered (orange)"
            pages.append(BoxedPicture(Image.fromarray(picture), given, answer.boxes, caption))
        return boxed_sheet(pages)

    @cached_property
    def _kept(self) -> TemporaryDirectory[str]:
        """Where pictures from memory lie, for as long as the chat is there."""
        return TemporaryDirectory(prefix="chat-")

    def _path(self, given: Any, written: Callable[[Any, Path], Path]) -> Path:
        return Path(given) if isinstance(given, str | Path) else written(given, Path(self._kept.name))

    def _with_question(
        self, question: str, images: Sequence[Path], video: Path | None, tracks: Sequence[Track]
    ) -> Sample:
        before = self.conversation
        for path in images:
            check_kind(path, "image")
        if video is not None:
            check_kind(video, "video")
        if video is not None and (images or before.turns):
            raise UserError(f"{video}: a video comes alone, with the first question; start a new conversation")
        if images and before.video_path is not None:
            raise UserError(f"{images[0]}: the conversation is about a video; start a new one for images")
        if video is not None:
            question = f"{VIDEO_PLACEHOLDER}\n{question}"
        elif images and IMAGE_PLACEHOLDER not in question:
            question = below_images(question, len(images), len(before.image_paths))
        sample = replace(
            before,
            turns=(*before.turns, question_turn(question)),
            image_paths=(*before.image_paths, *images),
            video_path=video if video is not None else before.video_path,
            tracks=tuple(tracks) or before.tracks,
        )
        if sample.tracks and not (sample.image_paths or sample.video_path):
            raise UserError("a box needs a picture to lie in: give an image or a video")
        return sample

    def _write(self, plan: SamplePlan, vision: Vision, on_text: Callable[[str], None] | None) -> str:
        model, tokenizer = self.model, self.encoder.tokenizer
        input_ids = torch.tensor([plan.input_ids], device=model.device)
        with torch.inference_mode(), settings_aside(model):
            ids = model.generate(
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                vision=moved(vision, model.device, model.dtype),
                eos_token_id=caption_ends(self.encoder),
                pad_token_id=tokenizer.pad_token_id,
                streamer=None if on_text is None else _Pieces(tokenizer, on_text),
                **self.settings,
            )
        return answer_text(tokenizer, ids[0, input_ids.shape[1] :].tolist())


def uses_box(encoder: SampleEncoder, sample: Sample, plan: SamplePlan, config: PreTrainedConfig) -> bool:
    """Whether the answer to a sample can depend on its tracks: through its text, its pictures or the model's modules.

    Args:
        plan: that of the sample.
        config: the model's.
    """
    try:
        without = encoder.plan(replace(sample, tracks=()), plan.frame_indices)
    except UserError:
        # The question cannot be asked without a box.
        return True
    if plan.painters or plan.views != without.views or plan.input_ids != without.input_ids:
        return True
    told = {name for name, tensor in plan.tensors.items() if not np.array_equal(tensor, without.tensors[name])}
    has_adapters = family_of(config).configuration.num_adapters(config) > 0
    return bool(told - {"boxes"}) or ("boxes" in told and has_adapters)


class _Pieces(TextStreamer):
    """Hands on what is written word by word, with the tags of boxes and without the chat's own marks."""

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True)
        self.on_text = on_text
        self.hidden = torch.tensor(sorted(hidden_ids(tokenizer)))

    def put(self, value: torch.Tensor) -> None:
        super().put(value[~torch.isin(value, self.hidden)])

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self.on_text(text)
