"""What a chat request may say, field by field: OpenAI's chat completions."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from internvl_chat.files import keys_once
from internvl_chat.serving.refusals import Refusal


class _Strict(BaseModel):
    """A misspelt field is an error, and so is true in place of a number: they would change the answer unseen."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, content: Any) -> Any:
        fields = content.items() if isinstance(content, dict) else ()
        for name, value in fields:
            field = cls.model_fields.get(name)
            items = value if isinstance(value, list) else [value]
            if field and not _takes_truth(field.annotation) and any(isinstance(item, bool) for item in items):
                raise ValueError(f"{name} is {json.dumps(value)}: expected what is neither true nor false")
        return content


def _takes_truth(annotation: Any) -> bool:
    """Whether true or false may stand in a field of this type."""
    return annotation is bool or False in get_args(annotation) or any(map(_takes_truth, get_args(annotation)))


class TextPart(_Strict):
    type: Literal["text"]
    text: str


class MediaUrl(_Strict):
    url: str
    detail: str | None = None


class ImagePart(_Strict):
    type: Literal["image_url"]
    image_url: MediaUrl


class VideoPart(_Strict):
    type: Literal["video_url"]
    video_url: MediaUrl


Part = Annotated[TextPart | ImagePart | VideoPart, Field(discriminator="type")]


def _parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class Message(_Strict):
    """One turn; a text stands for a list of one text part."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[Part], BeforeValidator(_parts)]
    name: str | None = None

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))


class Showing(_Strict):
    """What is shown of the pictures, and the tracks in them.

    Args:
        tracks: objects in a record's form, the one that is asked about first.
        width, height: of the pictures that boxes in pixels were counted in.
        num_frames: shown of a video.
        frames: numbers of the frames that are shown, ascending.
        clip: the part of the video that is shown, from and to in seconds.
        max_dynamic_patch: most tiles of an image.
    """

    tracks: list[dict[str, Any]] | None = None
    width: PositiveInt | None = None
    height: PositiveInt | None = None
    num_frames: PositiveInt | None = None
    frames: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None
    clip: tuple[float, float] | None = None
    max_dynamic_patch: int | None = Field(default=None, ge=1, le=64)


class StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: bool = False


class ChatRequest(_Strict):
    """The body of `/v1/chat/completions`.

    `num_beams`, `skip_special_tokens` and `mm_processor_kwargs` are not OpenAI's: its client has `extra_body`.
    The last fields are read by no one, or may only say what is the case anyway.
    """

    model: str
    messages: list[Message] = Field(min_length=1)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=64)
    max_tokens: PositiveInt | None = None
    max_completion_tokens: PositiveInt | None = None
    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = None
    num_beams: int | None = Field(default=None, ge=1, le=64)
    skip_special_tokens: bool = True
    mm_processor_kwargs: Showing = Field(default_factory=Showing)

    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    safety_identifier: str | None = None
    response_format: dict[Literal["type"], Literal["text"]] | None = None
    logprobs: Literal[False] | None = None
    frequency_penalty: float | None = Field(default=None, ge=0, le=0)
    presence_penalty: float | None = Field(default=None, ge=0, le=0)


def _model_of(place: tuple[int | str, ...]) -> type[_Strict]:
    """What a field at this place of a request would be one of."""
    models: dict[str, type[_Strict]] = {"mm_processor_kwargs": Showing, "stream_options": StreamOptions}
    parts: dict[int | str, type[_Strict]] = {"text": TextPart, "image_url": ImagePart, "video_url": VideoPart}
    if place[0] != "messages":
        return models.get(str(place[0]), ChatRequest) if len(place) > 1 else ChatRequest
    inside = [parts[kind] for kind in place[2:-1] if kind in parts]
    if len(inside) > 1:
        return MediaUrl
    return inside[0] if inside else Message


def parse_request(body: bytes | str) -> ChatRequest:
    """A request from its JSON.

    Raises:
        Refusal: it is none, or a field is unknown or not what is expected.
    """
    try:
        request = ChatRequest.model_validate_json(body)
        json.loads(body, object_pairs_hook=keys_once)
    except ValidationError as error:
        # What was sent is not repeated: it may be megabytes long, or private.
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        param = ".".join(map(str, first["loc"])) or None
        message = f"{param or 'the body'}: {first['msg'].removeprefix('Value error, ')}"
        if first["type"] == "extra_forbidden":
            known = _model_of(first["loc"])
            message = f"{param}: unknown field, which would not be heeded; expected {', '.join(known.model_fields)}"
        raise Refusal(message, param=param) from error
    except (ValueError, RecursionError) as error:
        raise Refusal(f"the body: {error}") from error
    return request
