"""Draw what the model sees of an annotation line: its frames with their box, the prompt's question, the caption."""

from __future__ import annotations

import argparse
from pathlib import Path

from internvl_chat.commands.options import add_json, add_meta, add_video_backend, png_path, positive_int, save_png, tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_meta(parser)
    parser.add_argument(
        "--line", type=int, default=1, help="number of the record, from 1, over all annotations (default: %(default)s)"
    )
    parser.add_argument("--out", type=png_path, default=Path("picture.png"), help="PNG to write (default: %(default)s)")
    parser.add_argument(
        "--num_frames",
        type=positive_int,
        default=8,
        help="frames to show; a model sees as many as its recipe trains with (default: %(default)s)",
    )
    add_video_backend(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from dataclasses import replace

    import numpy as np

    from internvl_chat.contracts import UserError
    from internvl_chat.data.media.drawing import Strip, contact_sheet
    from internvl_chat.data.media.sampling import clip_window, sample_frames
    from internvl_chat.data.media.sources import read_media_header, read_pictures
    from internvl_chat.data.records.annotations import load_meta, read_samples
    from internvl_chat.data.records.tracks import boxes_at

    # Each record once, however often training sees it.
    entries = [replace(entry, repeat_time=1, draw=None) for entry in load_meta(args.meta)]
    samples = [sample for entry in entries for sample in read_samples(entry)]
    if not 1 <= args.line <= len(samples):
        raise UserError(f"--line {args.line}: the annotations have {len(samples)} records")
    sample = samples[args.line - 1]
    header = read_media_header(sample)
    if not header.num_pictures:
        raise UserError(f"{sample.source}: sample {sample.id!r} is text alone: there is nothing to draw")
    indices = np.arange(header.num_pictures)
    if sample.video_path is not None:
        first, length = clip_window(sample.clip_s, header.timeline)
        indices = first + sample_frames(args.num_frames, length, "centre")
    boxes = boxes_at(sample.tracks[0], indices, header, sample.source) if sample.tracks else None
    lines = [f"[{sample.id}] {turn.text}" if turn.speaker == "human" else turn.text for turn in sample.turns]
    strip = Strip(read_pictures(sample, indices, args.video_backend), boxes, lines)
    save_png(contact_sheet([strip]), args.out)
    frames = indices.tolist()
    tell(args, f"{args.out}: {sample.id}, frames {frames}", out=args.out, id=sample.id, frames=frames)
    return 0
