"""The command line: `python -m internvl_chat COMMAND --help`."""

from __future__ import annotations

import argparse
import errno
import os
import select
import sys
from importlib import import_module
from typing import NoReturn

from internvl_chat import __version__
from internvl_chat.command_line import Parser, PrintCompletion, meant, program, quieten
from internvl_chat.commands.next_steps import tell_next
from internvl_chat.commands.options import keep_inputs
from internvl_chat.constants import INTERRUPTED, UNREAD
from internvl_chat.files import take_any_text
from internvl_chat.processes import run

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
        "npy",
        "select-records",
    ),
    "look at data": (
        "check",
        "picture",
    ),
    "train": ("train",),
    "ask a model": (
        "eval",
        "chat",
        "web",
        "answer",
        "evaluate",
        "caption-videos",
        "control",
        "serve",
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
# What the system says of a place, whatever the program does there.
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
COMMANDS = tuple(name for names in COMMAND_GROUPS.values() for name in names)


def build_parser() -> Parser:
    parser = Parser(
        prog=program(),
        description="Fine-tuning vision-language models so that a box decides what the caption is about.",
        epilog="\n".join(f"to {purpose}: {', '.join(names)}" for purpose, names in COMMAND_GROUPS.items()),
    )
    parser.add_argument("--version", action="version", version=f"intentvcnet {__version__}")
    parser.add_argument(
        "--print_completion", action=PrintCompletion, choices=("bash", "zsh", "tcsh"), help="for your shell, and exit"
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = import_module(f"internvl_chat.commands.{name.replace('-', '_')}")
        text = module.__doc__ or ""
        sub = subparsers.add_parser(name, help=text.strip().splitlines()[0], description=text)
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


def _with_command(words: list[str], parser: Parser) -> list[str]:
    """The words with the command as it is declared: `score_boxes` is `score-boxes`."""
    if not words or words[0].startswith("-"):
        return words
    command = words[0].replace("_", "-")
    if command not in COMMANDS:
        parser.error(f"{words[0]}: is no command: {meant(command, COMMANDS, '--help lists them')}")
    return [command, *words[1:]]


def _is_unread() -> bool:
    """Whether nobody reads on what is printed, as behind `| head`."""
    reader = select.poll()
    reader.register(sys.stdout.fileno(), 0)
    return bool(reader.poll(0))


def main(argv: list[str] | None = None) -> int:
    take_any_text()
    parser = build_parser()
    args = parser.parse_args(_with_command(sys.argv[1:] if argv is None else argv, parser))
    # A training takes this process' place, where it is the program's own.
    args.is_program = argv is None
    quieten()
    try:
        return _obey(args)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "internvl_chat"):
            raise
        sys.stderr.write(
            f"error: {package} is not installed for {sys.executable}: activate the environment that the package is "
            "installed in (source .venv/bin/activate), or pip install -r requirements/internvl_chat.txt\n"
        )
        return 1


def _obey(args: argparse.Namespace) -> int:
    """Run the command; what a user can act on is a line on stderr, and so is what comes next."""
    from internvl_chat.contracts import UserError

    try:
        keep_inputs(args)
        code = int(args.run(args))
        sys.stdout.flush()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except BrokenPipeError:
        if not _is_unread():
            raise
        # What is left in the buffer is written at the very end, and must fall somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    except OSError as error:
        if error.filename is None or error.errno not in _REFUSALS:
            raise
        sys.stderr.write(f"error: {error.filename}: {error.strerror}: give a place that can be used, or make room\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return INTERRUPTED
    tell_next(args.command, args, found_faults=code != 0)
    return code


def run_program() -> NoReturn:
    """What a shell starts."""
    run(main)


if __name__ == "__main__":
    run_program()
