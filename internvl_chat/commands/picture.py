"""Draw what the model sees of an annotation line: its frames with their box, the prompt's question, the caption."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from internvl_chat.commands.options import VIDEO_BACKENDS, add_meta_path, positive_int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_meta_path(parser)
    parser.add_argument(
        "--line", type=int, default=1, help="line of the annotation file, from 1 (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("picture.png"), help="PNG to write (default: %(default)s)")
    parser.add_argument("--num_frames", type=positive_int, default=8, help="frames to show (default: %(default)s)")
    parser.add_argument("--video_backend", choices=VIDEO_BACKENDS, default="pyav", help="(default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    from internvl_chat.boxes import load_boxes
    from internvl_chat.contracts import UserError
    from internvl_chat.data.annotations import load_meta, read_samples
    from internvl_chat.data.frame_sampling import sample_frames
    from internvl_chat.data.picture import Strip, contact_sheet
    from internvl_chat.data.video import read_frames

    samples = [sample for entry in load_meta(args.meta_path) for sample in read_samples(entry)]
    if not 1 <= args.line <= len(samples):
        raise UserError(f"--line {args.line}: the annotations have {len(samples)} lines")
    sample = samples[args.line - 1]
    boxes = load_boxes(sample.boxes_path)
    indices = sample_frames(args.num_frames, len(boxes), "centre")
    lines = [f"[{sample.id}] {turn.text}" if turn.speaker == "human" else turn.text for turn in sample.turns]
    strip = Strip(read_frames(sample.video_path, indices, args.video_backend), boxes[indices], lines)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet([strip]).save(args.out)
    sys.stdout.write(f"{args.out}: {sample.id}, frames {indices.tolist()}\n")
    return 0
