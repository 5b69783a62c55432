"""A question of a benchmark as a sample of this project: its text, and its pictures, videos and tracks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from internvl_chat.constants import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.media.pictures import PICTURE_SUFFIXES
from internvl_chat.data.prompts.wordings import question_turn

_PLACEHOLDERS = (IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER)


class AskedSample(str):
    """A video's path, as every model of a harness takes it, which carries the whole sample for this project's own."""

    sample: Sample

    def __new__(cls, sample: Sample) -> AskedSample:
        shown = sample.video_path or next(iter(sample.image_paths), "")
        path = super().__new__(cls, str(shown))
        path.sample = sample
        return path


def sample_of(name: str, question: str, visuals: Sequence[object], pictures: Path) -> Sample:
    """The sample that asks a question about what is shown.

    Args:
        name: the sample's id.
        question: as the task words it. Where it has no placeholders of its own, what is shown stands before it.
        visuals: pictures, paths of pictures or of one video, or one `AskedSample`.
        pictures: folder where pictures in memory are written, without loss.
    Raises:
        UserError: something else is shown, several videos, or a video beside pictures; or the question has placeholders
            for another number of them.
    """
    if len(visuals) == 1 and isinstance(visuals[0], AskedSample):
        return visuals[0].sample
    paths = [_path_of(visual, pictures / f"{name}-{number}.png", name) for number, visual in enumerate(visuals)]
    videos = [path for path in paths if path.suffix.lower() not in PICTURE_SUFFIXES]
    if videos and len(paths) > 1:
        raise UserError(f"{name}: shows {len(videos)} videos among {len(paths)} files, expected one video or pictures")
    placeholder = VIDEO_PLACEHOLDER if videos else IMAGE_PLACEHOLDER
    found = sum(question.count(tag) for tag in _PLACEHOLDERS)
    if not found:
        question = "\n".join([*[placeholder] * len(paths), question])
    elif question.count(placeholder) != found or found != len(paths):
        raise UserError(f"{name}: the question has {found} placeholders, expected {len(paths)} {placeholder}")
    turns = (question_turn(question),)
    if videos:
        return Sample(name, turns, name, video_path=videos[0])
    return Sample(name, turns, name, image_paths=tuple(paths))


def _path_of(visual: object, picture: Path, name: str) -> Path:
    if isinstance(visual, Image.Image):
        visual.save(picture, compress_level=1)
        return picture
    if isinstance(visual, str):
        if not Path(visual).exists():
            raise UserError(f"{visual}: not found; the question {name} shows it")
        return Path(visual)
    raise UserError(f"{name}: shows a {type(visual).__name__}, expected a picture or a path")
