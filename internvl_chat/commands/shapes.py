"""Write a small IntentVC-shaped dataset of moving shapes, whose truth is known."""

from __future__ import annotations

import argparse

from internvl_chat.commands.options import add_json, count, folder_to_write, positive_int, tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=folder_to_write, required=True, help="new folder for the dataset")
    parser.add_argument("--train_clips", type=positive_int, default=600, help="two ids a clip (default: %(default)s)")
    parser.add_argument("--public_clips", type=count, default=50, help="(default: %(default)s)")
    parser.add_argument("--private_clips", type=count, default=50, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.contracts import UserError
    from internvl_chat.data.synthetic.shapes import write_dataset

    try:
        counts = write_dataset(
            args.out,
            train_clips=args.train_clips,
            public_clips=args.public_clips,
            private_clips=args.private_clips,
            seed=args.seed,
        )
    except FileExistsError as error:
        raise UserError(str(error)) from error
    ids = ", ".join(f"{n} {part}" for part, n in counts.items())
    tell(args, f"{args.out}: {ids} ids", out=args.out, ids=counts)
    return 0
