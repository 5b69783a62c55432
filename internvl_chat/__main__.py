"""The command line: `python -m internvl_chat COMMAND --help`."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from internvl_chat.commands.options import keep_inputs, with_underscores
from internvl_chat.constants import INTERRUPTED

# What a command is for, and its name; each has a module of its name in `commands/`.
COMMAND_GROUPS = {
    "make data": (
        "shapes",
        "flowchart",
        "render-texts",
        "extract-frames",
        "extract-features",
        "annotate",
        "track",
        "convert-data",
        "select-records",
    ),
    "look at data": (
        "check",
        "picture",
    ),
    "ask a model": (
        "chat",
        "answer",
        "evaluate",
        "caption-videos",
        "control",
    ),
    "score": (
        "score",
        "score-boxes",
        "score-answers",
        "consensus",
        "validate-submission",
        "rank",
        "report",
        "ablation",
    ),
    "handle checkpoints": (
        "inspect",
        "plan",
        "convert",
        "merge",
        "verify",
    ),
}
COMMANDS = tuple(name for names in COMMAND_GROUPS.values() for name in names)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m internvl_chat",
        description="Fine-tuning vision-language models so that a box decides what the caption is about.",
        epilog="\n".join(f"to {purpose}: {', '.join(names)}" for purpose, names in COMMAND_GROUPS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
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
            allow_abbrev=False,
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(with_underscores(sys.argv[1:] if argv is None else argv))
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
