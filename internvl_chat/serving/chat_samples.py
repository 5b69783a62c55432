"""A chat request to what a model is asked: its conversation as a sample, and how the answer is decoded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from internvl_chat.constants import VIDEO_PLACEHOLDER
from internvl_chat.contracts import Sample, Track, Turn, UserError
from internvl_chat.data.prompts.wordings import question_turn, wording_named
from internvl_chat.data.records.given.judged_tracks import read_judged_tracks
from internvl_chat.inference.chat import below_images
from internvl_chat.inference.decoding import LEAST_TEMPERATURE, Decoding
from internvl_chat.serving.chat_requests import ChatRequest, ImagePart, Message, Showing, TextPart, VideoPart
from internvl_chat.serving.media.media_limits import check_picture, check_video
from internvl_chat.serving.refusals import Refusal
from internvl_chat.serving.server_limits import ServerLimits

_SPEAKERS = {"system": "system", "developer": "system", "user": "human", "assistant": "gpt"}


@dataclass
class _Pictures:
    """What the messages before have shown and asked; `called` says how the client called each file."""

    images: list[Path] = field(default_factory=list)
    video: Path | None = None
    num_questions: int = 0
    called: dict[Path, str] = field(default_factory=dict)


class QuestionReader:
    """Makes a sample of a chat request.

    Args:
        open_file: gives the file that a URL stands for.
        steering: tokens that no text may hold: they would end a turn, or stand for a picture.
        root: the folder that links in a folder of frames may not leave.
    """

    def __init__(
        self,
        open_file: Callable[[str], Path],
        limits: ServerLimits,
        steering: Collection[str],
        root: Path | None,
    ) -> None:
        self.open_file, self.limits, self.steering, self.root = open_file, limits, steering, root
        self.seen = _Pictures()

    def read(self, request: ChatRequest) -> Sample:
        """The conversation with its pictures and tracks, files opened and held against the limits.

        Raises:
            Refusal: it cannot be asked so.
        """
        try:
            return self._sample(request)
        except Refusal:
            raise
        except UserError as error:
            raise self.told_to_client(str(error)) from error

    def told_to_client(self, message: str) -> Refusal:
        """An error with files under the names that the client gave them, and not the server's own."""
        return Refusal(in_clients_words(message, self.seen.called))

    def _sample(self, request: ChatRequest) -> Sample:
        messages, showing, seen = request.messages, request.mm_processor_kwargs, self.seen
        if messages[-1].role != "user":
            raise Refusal("messages: the last one is to be answered, expected role 'user'", param="messages")
        texts = [self._text(number, message) for number, message in enumerate(messages)]
        tracks = _tracks(showing, seen)
        if not messages[-1].text.strip():
            texts[-1] += _own_words(tracks, seen)
        turns = [
            question_turn(text) if message.role == "user" else Turn(_SPEAKERS[message.role], text)
            for message, text in zip(messages, texts, strict=True)
        ]
        sample = Sample(
            "chat",
            tuple(turns),
            "the request",
            tuple(seen.images),
            seen.video,
            showing.clip,
            tracks,
            self.root,
            max_dynamic_patch=showing.max_dynamic_patch,
            frame_numbers=tuple(showing.frames or ()),
        )
        _check_showing(showing, seen, self.limits)
        return sample

    def _text(self, number: int, message: Message) -> str:
        """A message's text, below the placeholders of its pictures, as training data has it."""
        where, seen = f"messages.{number}", self.seen
        found = [token for token in self.steering if token in message.text]
        if found:
            raise Refusal(
                f"{where}: the text holds {found[0]}, which would steer the prompt: leave it out", param=where
            )
        pictures = [part for part in message.content if not isinstance(part, TextPart)]
        if pictures and message.role != "user":
            raise Refusal(f"{where}: pictures in a message of {message.role!r}, expected 'user'", param=where)
        if number and message.role in ("system", "developer"):
            raise Refusal(f"{where}: role {message.role!r}, expected in the first message alone", param=where)
        num_before = len(seen.images)
        videos = [part for part in pictures if isinstance(part, VideoPart)]
        if (videos and (len(pictures) > 1 or seen.num_questions)) or (pictures and seen.video):
            raise Refusal(f"{where}: a video comes alone, with the first question", param=where)
        for part in pictures:
            self._open(part, where)
        seen.num_questions += message.role == "user"
        if videos:
            return f"{VIDEO_PLACEHOLDER}\n{message.text}"
        return below_images(message.text, len(pictures), num_before) if pictures else message.text

    def _open(self, part: ImagePart | VideoPart, where: str) -> None:
        seen = self.seen
        url = part.image_url.url if isinstance(part, ImagePart) else part.video_url.url
        path = self.open_file(url)
        seen.called[path] = f"{where}: {part.type}" if url.startswith("data:") else url
        if isinstance(part, VideoPart):
            check_video(path, self.limits)
            seen.video = path
            return
        if len(seen.images) == self.limits.max_images:
            raise Refusal(f"{where}: more images than {self.limits.max_images}, the most in a request", param=where)
        check_picture(path, self.limits)
        seen.images.append(path)


def in_clients_words(message: str, called: Mapping[Path, str]) -> str:
    """A message with files under the names that the client gave them.

    Args:
        called: how the client called each file.
    """
    for path, name in called.items():
        message = message.replace(str(path), name)
    return message


def _tracks(showing: Showing, seen: _Pictures) -> tuple[Track, ...]:
    if showing.tracks is None:
        return ()
    where = "mm_processor_kwargs"
    if not (seen.images or seen.video):
        raise Refusal(f"{where}: tracks need pictures to lie in: send a video_url or image_url", param=where)
    given = {"tracks": showing.tracks, "width": showing.width, "height": showing.height}
    record = {key: value for key, value in given.items() if value is not None}
    try:
        return read_judged_tracks(record, bool(seen.images), where, showing.frames or ())
    except UserError as error:
        raise Refusal(str(error), param=f"{where}.tracks") from error


def _own_words(tracks: Sequence[Track], seen: _Pictures) -> str:
    """What training data asks about a video, where the client does not say."""
    if seen.video is None:
        message = "messages: the last one has no text: expected a question; a video alone is described as training does"
        raise Refusal(message, param="messages")
    return wording_named("coordinates" if tracks else "text_only").asks(tracks[0].name if tracks else "")


def _check_showing(showing: Showing, seen: _Pictures, limits: ServerLimits) -> None:
    where = "mm_processor_kwargs"
    if seen.video is None and (showing.num_frames or showing.frames or showing.clip):
        raise Refusal(f"{where}: num_frames, frames and clip are of a video: send a video_url", param=where)
    if showing.frames and (showing.num_frames or showing.clip):
        raise Refusal(f"{where}: frames says all, expected neither num_frames nor clip with it", param=where)
    if showing.frames and showing.frames != sorted(set(showing.frames)):
        raise Refusal(f"{where}.frames: expected ascending frame numbers", param=f"{where}.frames")
    if max(showing.num_frames or 0, len(showing.frames or ())) > limits.max_shown_frames:
        raise Refusal(f"{where}: more frames than {limits.max_shown_frames}, the most that are shown", param=where)
    if showing.clip and not 0 <= showing.clip[0] < showing.clip[1]:
        raise Refusal(f"{where}.clip: expected [from, to] in seconds, from before to", param=f"{where}.clip")


def decoding_of(request: ChatRequest, most_tokens: int, temperature: float) -> Decoding:
    """How the answer is decoded.

    The seed is no part of it: requests of several seeds are decoded together, and draw by the seed in their ask's id.

    Args:
        most_tokens: of an answer, whatever the request says.
        temperature: where it does not.
    Raises:
        Refusal: settings that contradict each other.
    """
    limits = {limit for limit in (request.max_completion_tokens, request.max_tokens) if limit}
    if len(limits) > 1:
        raise Refusal(
            f"max_tokens: {request.max_tokens} beside max_completion_tokens {request.max_completion_tokens}: expected "
            "one of the two",
            param="max_tokens",
        )
    wanted = max(limits, default=most_tokens)
    if request.temperature is not None:
        temperature = request.temperature
    beams, answers = request.num_beams or 1, request.n or 1
    if 0 < temperature < LEAST_TEMPERATURE:
        raise Refusal(
            f"temperature: {temperature:g}, expected 0 (no sampling), or {LEAST_TEMPERATURE:g} and above",
            param="temperature",
        )
    if not temperature and answers > beams:
        raise Refusal(
            f"n: {answers} answers with temperature 0 and num_beams {beams}: expected a temperature above 0, or as "
            "many beams as answers",
            param="n",
        )
    if temperature and 1 < beams >= answers:
        raise Refusal(
            f"num_beams: {beams} with temperature {temperature:g} and n {answers}: the beams come first and nothing "
            "would be sampled; expected n above num_beams, or one of the two",
            param="num_beams",
        )
    return Decoding(beams, min(wanted, most_tokens), temperature, request.top_p or 1.0, answers)
