"""Write `object_bboxes.npy` beside each video of a dataset in IntentVC's layout.

    python -m internvl_chat npy                   # roots from shell/data/intentvc_caption.json
    python -m internvl_chat npy --root /path/to/IntentVC

For every <category>/<id>/<id>.mp4, the lines `x,y,w,h` (pixels) of object_bboxes.txt become an integer array [T, 4] of
x1 y1 x2 y2 in thousandths of the picture's side. Absent targets stay all-zero rows.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from internvl_chat.choices import COUNTED_IN
from internvl_chat.commands.options import add_json, add_meta, tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, help="the dataset's folder (default: each 'root' of the meta JSON)")
    add_meta(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="with --root: write into a folder like it, 'boxes_root' in a meta JSON (default: beside the videos)",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument(
        "--counted_in",
        choices=COUNTED_IN,
        default="shown",
        help="the picture that the pixels were counted in: as players show it, or as it is stored, before it is turned "
        "(default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="write again what is up to date")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from internvl_chat.contracts import UserError
    from internvl_chat.data.records.annotations import load_roots
    from internvl_chat.data.records.box_files import PrepareReport, prepare_boxes

    if args.out and not args.root:
        raise UserError("--out stands for one dataset's folder: give that as --root")
    report = PrepareReport()
    roots = [args.root] if args.root else load_roots(args.meta)
    videos = find_all_videos(dict.fromkeys(roots), args.out)
    for _ in tqdm(
        prepare_boxes(videos, args.counted_in, workers=max(1, args.workers), overwrite=args.overwrite, report=report),
        total=len(videos),
        unit="video",
        disable=None,
    ):
        pass
    for _, reason in report.failed:
        sys.stderr.write(f"failed: {reason}\n")
    counts = {"written": len(report.written), "skipped": len(report.skipped), "failed": len(report.failed)}
    tell(args, "{written} written, {skipped} skipped (up to date), {failed} failed".format(**counts), **counts)
    return 1 if report.failed else 0


def find_all_videos(roots: Iterable[Path], boxes_root: Path | None = None) -> dict[Path, Path]:
    """The videos of all roots, and where the boxes of each are to be; in a mix some roots have none of this layout.

    Raises:
        UserError: a root is no folder, or none has a video.
    """
    from internvl_chat.contracts import UserError
    from internvl_chat.data.records.box_files import find_videos
    from internvl_chat.data.records.intentvc import boxes_path_of

    videos: dict[Path, Path] = {}
    without: list[UserError] = []
    for root in roots:
        try:
            videos |= {video: boxes_path_of(video, root, boxes_root) for video in find_videos(root)}
        except UserError as error:
            if not root.is_dir():
                raise
            without.append(error)
    if without and not videos:
        raise without[0]
    return videos
