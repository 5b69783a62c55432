"""Write long texts as sequences of pictures, and records that show them as videos.

    python -m internvl_chat render-texts LongAlpaca-12k.json --preset longalpaca --out texts

IN is a JSON list or JSONL of texts with a question and an answer. DIR gets a folder of pictures a text, records.jsonl,
a meta.json for training, and report.json: what was left out, and which characters no font has (drawn as U+FFFD). A
killed command goes on where it stopped. Chinese and Japanese need a --font that has them; Arabic and Hebrew are in the
default fonts. Joined letters and both directions need Pillow's raqm layout, which its wheels bring.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_chat.commands.options import (
    add_json,
    count,
    counted,
    folder_to_write,
    png_path,
    positive_int,
    save_png,
    tell,
)
from internvl_chat.data.synthetic.texts import PRESETS, TextFields

if TYPE_CHECKING:
    from PIL import Image

    from internvl_chat.data.synthetic.text_dataset import TextVideo

_MISSING_SHOWN = 10
_PICTURES_A_TEXT, _PICTURE_PX = 6, 224


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", type=Path, metavar="IN", help="JSON list or JSONL of texts")
    add(
        "--out",
        type=folder_to_write,
        required=True,
        metavar="DIR",
        help="folder for the pictures: new, or one to go on with",
    )
    add("--preset", choices=PRESETS, help="the names of a known set's fields")
    add("--context", help="field of the long text (default: context)")
    add("--question", help="field of the question (default: question)")
    add("--answer", help="field of the answer (default: answer)")
    add("--split", help="regular expression whose last match parts text and question where --context holds both")
    add("--name", help="what the folders' names begin with (default: IN's name)")
    add("--font", type=Path, nargs="+", help="font files, the preferred one first (default: DejaVu Sans, STIX)")
    add("--font_px", type=positive_int, default=20, help="size of the letters (default: %(default)s)")
    add("--page_px", type=positive_int, default=448, help="side of a picture (default: %(default)s)")
    add("--margin_px", type=count, default=20, help="left and right of the text (default: %(default)s)")
    add("--max_words", type=positive_int, default=115, help="most words of a picture (default: %(default)s)")
    add("--max_missing", type=float, default=0.01, help="most share of unknown characters (default: %(default)s)")
    add("--workers", type=positive_int, default=os.cpu_count(), help="processes (default: one a core)")
    add("--sheet", type=png_path, help="write a PNG of some texts' first pictures")
    add("--sheet_texts", type=positive_int, default=4, help="texts on the sheet (default: %(default)s)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.data.media.fonts import font_files
    from internvl_chat.data.synthetic.text_dataset import TextJob, write_text_videos
    from internvl_chat.data.synthetic.text_pages import PageStyle

    preset = PRESETS[args.preset] if args.preset else TextFields()
    named = {key: getattr(args, key) for key in ("context", "question", "answer", "split")}
    fields = TextFields(**{key: value or getattr(preset, key) for key, value in named.items()})
    fonts = tuple(args.font) if args.font else font_files()
    style = PageStyle(fonts, args.font_px, args.page_px, args.margin_px, args.max_words)
    name = re.sub(r"[^\w.-]+", "_", args.name or args.source.stem)
    started = time.perf_counter()
    videos = write_text_videos(args.source, fields, TextJob(args.out, name, style, args.max_missing), args.workers)
    _tell(args, videos, time.perf_counter() - started)
    if args.sheet:
        save_png(_sheet(videos, args.out, args.sheet_texts), args.sheet)
    return 0


def _tell(args: argparse.Namespace, videos: list[TextVideo], seconds: float) -> None:
    from internvl_chat.data.synthetic.text_dataset import missing_characters, reasons

    shown = [video for video in videos if not video.left_out]
    written = [video for video in shown if not video.was_there]
    pictures, pictures_now = (sum(video.num_pictures for video in some) for some in (shown, written))
    said = [
        f"{args.out}: {counted(len(shown), 'text')}, {counted(pictures, 'picture')}",
        f"written now: {counted(len(written), 'text')}, {counted(pictures_now, 'picture')}, "
        f"{len(written) / seconds:.1f} texts/s",
    ]
    said += [f"left out: {number} {reason}" for reason, number in reasons(videos).items()]
    missing = list(missing_characters(videos))
    said += [
        f"no font has U+{ord(character):04X}{f' {character}' if character.isprintable() else ''}: "
        f"{counted(times, 'time')} in {counted(len(names), 'text')}, as {names[0]}"
        for character, times, names in missing[:_MISSING_SHOWN]
    ]
    if len(missing) > _MISSING_SHOWN:
        said.append(f"and {len(missing) - _MISSING_SHOWN} other characters: see {args.out / 'report.json'}")
    tell(
        args,
        "\n".join(said),
        out=args.out,
        texts=len(shown),
        pictures=pictures,
        written_now=len(written),
        left_out=reasons(videos),
        missing={f"U+{ord(character):04X}": times for character, times, _ in missing},
    )


def _sheet(videos: list[TextVideo], folder: Path, num_texts: int) -> Image.Image:
    import numpy as np

    from internvl_chat.contracts import Sample
    from internvl_chat.data.media.drawing import Strip, contact_sheet
    from internvl_chat.data.media.sources import read_pictures

    strips = []
    for video in [video for video in videos if not video.left_out][:num_texts]:
        sample = Sample(video.name, (), "", video_path=folder / video.name)
        frames = read_pictures(sample, np.arange(min(_PICTURES_A_TEXT, video.num_pictures)))
        strips.append(
            Strip(frames, None, [video.question, video.answer, f"[{video.name}: {video.num_pictures} pictures]"])
        )
    return contact_sheet(strips, frame_width_px=_PICTURE_PX)
