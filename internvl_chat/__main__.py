"""The command line: `python -m internvl_chat COMMAND --help`."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from internvl_chat.commands.options import keep_inputs
from internvl_chat.constants import INTERRUPTED

COMMANDS = (
    "shapes",
    "flowchart",
    "annotate",
    "convert-data",
    "check",
    "picture",
    "chat",
    "answer",
    "control",
    "score",
    "score-boxes",
    "consensus",
    "validate-submission",
    "rank",
    "report",
    "ablation",
    "inspect",
    "plan",
    "convert",
    "merge",
    "verify",
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m internvl_chat",
        description="Fine-tuning vision-language models so that a box decides what the caption is about.",
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = import_module(f"internvl_chat.commands.{name.replace('-', '_')}")
        text = module.__doc__ or ""
        sub = subparsers.add_parser(
            name,
            help=text.strip().splitlines()[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    from internvl_chat.contracts import UserError

    try:
        keep_inputs(args)
        return int(args.run(args))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
