"""Read a whole meta JSON before training and report every fault at once.

    python -m internvl_chat check shell/data/intentvc_caption.json
    python -m internvl_chat check META.json --html check.html --fix repaired

Every record is read, and the header of every file it names, in parallel; no video frame is decoded. Each fault has a
stable code, its place, what was expected and what to do. Errors make the exit code 1, warnings do not.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from internvl_chat.commands.options import add_json, count, file_to_write, positive_int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("meta", type=Path, help="meta JSON")
    add_json(parser)
    add("--html", type=file_to_write, metavar="FILE", help="also write an HTML sheet with sample pictures")
    add("--fix", type=Path, metavar="FOLDER", help="write repaired copies to this new folder; no source is changed")
    add("--show", type=count, default=5, help="findings to print of each kind (default: %(default)s)")
    add("--workers", type=positive_int, help="processes (default: one a core)")
    add("--max_seq_length", type=positive_int, default=16384, help="tokens a sample may have (default: %(default)s)")
    add("--max_num_frame", type=positive_int, default=48, help="most frames of a video (default: %(default)s)")
    add("--max_dynamic_patch", type=positive_int, default=12, help="most tiles of images (default: %(default)s)")
    add("--force_image_size", type=positive_int, default=448, help="side of a tile, pixels (default: %(default)s)")
    add("--tokens_per_tile", type=positive_int, default=256, help="image tokens of a tile (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    from internvl_chat.data.checking.check import Budget, check_meta
    from internvl_chat.data.checking.faults import KINDS
    from internvl_chat.data.checking.findings import as_json, as_text

    budget = Budget(
        args.max_seq_length, args.max_num_frame, args.max_dynamic_patch, args.force_image_size, args.tokens_per_tile
    )
    report = check_meta(args.meta, budget, args.workers)
    # For what is said to be done next.
    args.mendable = any(KINDS[finding.code].repairable for finding in report.findings)
    sys.stdout.write(json.dumps(as_json(report), indent=1) + "\n" if args.json else as_text(report, args.show))
    if args.html:
        from internvl_chat.data.checking.html_sheet import write_sheet

        write_sheet(report, args.html)
    if args.fix:
        from internvl_chat.data.checking.repair import write_repaired

        mended = write_repaired(report, args.fix)
        listed = ", ".join(f"{number} {code}" for code, number in sorted(mended.items())) or "nothing to repair"
        sys.stderr.write(f"{args.fix / args.meta.name}: {listed}\n")
    return 1 if report.of_severity("error") else 0
