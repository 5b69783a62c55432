"""Long texts written as folders of pictures, with a record each that shows its folder as a video.

DIR/<name>_00000/text_pic_00000.png ...   records.jsonl   meta.json   report.json   settings.json
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from internvl_chat.constants import VIDEO_PLACEHOLDER
from internvl_chat.contracts import UserError
from internvl_chat.data.records.meta_files import write_meta
from internvl_chat.data.synthetic.text_pages import PageStyle, draw_page, lay_out, legible
from internvl_chat.data.synthetic.texts import LongText, TextFields, read_long_texts
from internvl_chat.files import begin_folder, file_digest, replacing_folder, write_json, write_jsonl
from internvl_chat.processes import worker_pool

# Texts handed to the processes at a time: a file of them may be as large as the memory.
_TEXTS_AT_ONCE = 512


@dataclass(frozen=True)
class TextVideo:
    """What became of a text.

    Args:
        name: its folder.
        left_out: why it has no pictures; empty where it has.
        missing: how often each character that no font has stands in it.
    """

    name: str
    question: str
    answer: str
    num_pictures: int = 0
    was_there: bool = False
    left_out: str = ""
    missing: Mapping[str, int] | None = None

    def record(self) -> dict[str, Any]:
        """One line of the records file."""
        return {
            "id": self.name,
            "video": self.name,
            "conversations": [
                {"from": "human", "value": f"{VIDEO_PLACEHOLDER}\n{self.question}"},
                {"from": "gpt", "value": self.answer},
            ],
        }


@dataclass(frozen=True)
class TextJob:
    """How texts become folders.

    Args:
        name: what the folders' names begin with.
        max_missing: most share of a text's characters that may be in no font; a text with more is left out.
    """

    folder: Path
    name: str
    style: PageStyle
    max_missing: float


def write_text_videos(source: Path, fields: TextFields, job: TextJob, workers: int) -> list[TextVideo]:
    """Write the pictures of every text of a file and the records; folders that are there are not written again.

    Raises:
        UserError: the file, a font or the folder cannot be used, or the folder was begun with other settings.
    """
    begin_folder(job.folder, _settings(source, fields, job))
    videos: list[TextVideo] = []
    texts = read_long_texts(source, fields)
    with worker_pool(workers) as pool:
        while batch := list(islice(texts, _TEXTS_AT_ONCE)):
            videos += pool.map(partial(_write_text, job), batch, chunksize=4)
    shown = [video for video in videos if not video.left_out]
    if not shown:
        why = ", ".join(f"{number} {reason}" for reason, number in reasons(videos).items())
        raise UserError(f"{source}: none of {len(videos)} texts can be shown{why and ': '}{why}")
    annotation = job.folder / "records.jsonl"
    write_jsonl(annotation, (video.record() for video in shown))
    write_meta(job.folder / "meta.json", job.name, job.folder, annotation, every_frame=True, length=len(shown))
    write_json(job.folder / "report.json", report_of(videos))
    return videos


def report_of(videos: Iterable[TextVideo]) -> dict[str, Any]:
    """Which texts were left out and why, and which characters no font has, text by text."""
    videos = list(videos)
    return {
        "texts": sum(not video.left_out for video in videos),
        "pictures": sum(video.num_pictures for video in videos),
        "left_out": {video.name: video.left_out for video in videos if video.left_out},
        "missing": {
            video.name: {f"U+{ord(character):04X}": count for character, count in video.missing.items()}
            for video in videos
            if video.missing
        },
    }


def reasons(videos: Iterable[TextVideo]) -> Counter[str]:
    """Why texts were left out, and how many for each reason."""
    return Counter(video.left_out for video in videos if video.left_out)


def missing_characters(videos: Iterable[TextVideo]) -> Iterator[tuple[str, int, list[str]]]:
    """Each character that no font has: how often it was met, and in which texts; the most frequent first."""
    counts: Counter[str] = Counter()
    names: dict[str, list[str]] = {}
    for video in videos:
        for character, count in (video.missing or {}).items():
            counts[character] += count
            names.setdefault(character, []).append(video.name)
    for character, count in counts.most_common():
        yield character, count, names[character]


def _settings(source: Path, fields: TextFields, job: TextJob) -> dict[str, Any]:
    """All that pictures and records depend on."""
    style = {**asdict(job.style), "fonts": [file_digest(path) for path in job.style.fonts]}
    return {
        "source": file_digest(source),
        "fields": asdict(fields),
        "name": job.name,
        "max_missing": job.max_missing,
        "style": style,
    }


def _write_text(job: TextJob, text: LongText) -> TextVideo:
    name = f"{job.name}_{text.number:05d}"
    left_out = partial(TextVideo, name, text.question, text.answer)
    for part in ("context", "question", "answer"):
        if not getattr(text, part).strip():
            return left_out(left_out=f"without {part}")
    readable = legible(text.context, job.style)
    missing = Counter(readable.missing)
    if not readable.num_characters:
        return left_out(left_out="without words")
    if len(readable.missing) > job.max_missing * readable.num_characters:
        return left_out(left_out="with too many characters that no font has", missing=missing)
    folder = job.folder / name
    video = partial(TextVideo, name, text.question, text.answer, missing=missing)
    if folder.is_dir():
        return video(num_pictures=len(os.listdir(folder)), was_there=True)
    try:
        pages = lay_out(readable.text, job.style)
    except UserError as error:
        raise UserError(f"{text.source}: {error}") from error
    with replacing_folder(folder) as half_done:
        for number, page in enumerate(pages):
            # A third larger than at the default level, in less than two thirds of the time.
            draw_page(page, job.style).save(half_done / f"text_pic_{number:05d}.png", compress_level=1)
    return video(num_pictures=len(pages))
