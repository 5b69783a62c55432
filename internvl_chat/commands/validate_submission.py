"""Check a submission before the server does: names, exact ids, encoding, version, and every caption.

    python -m internvl_chat validate-submission result.zip

Anybody's zip, or one part of it as .json. All problems are listed; the exit code is 0 when there are none. The ids are
the IntentVC challenge's 210 public and 210 private ones unless --ids gives others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from internvl_chat.commands.options import add_json, tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="result.zip, or a result file ending in .json")
    parser.add_argument(
        "--part",
        choices=("public", "private", "both"),
        help="what it must hold (default: both in a zip; in a .json the part that its ids belong to)",
    )
    parser.add_argument(
        "--ids", type=Path, help="other ids: a JSON list or captions file with --part, or {'public': [], 'private': []}"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.contracts import UserError
    from internvl_chat.tasks.intentvc.check_submission import validate_submission
    from internvl_chat.tasks.intentvc.submission import SPLITS, challenge_ids, read_ids_of_parts

    if args.part == "both" and args.file.suffix == ".json":
        raise UserError(f"{args.file}: is one file, a submission of both parts is a zip: give --part public or private")
    parts = [split for split in SPLITS if args.part in (None, "both", split)]
    expected = read_ids_of_parts(args.ids, parts) if args.ids else {split: challenge_ids(split) for split in parts}
    problems = validate_submission(args.file, expected)
    what = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}" if problems else "valid"
    tell(args, "\n".join([*problems, f"{args.file}: {what}"]), file=args.file, valid=not problems, problems=problems)
    return 1 if problems else 0
