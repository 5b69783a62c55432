"""The parser of every entry: it guesses nothing from a beginning, and its last word is what was wrong."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

DEFAULT_META = Path("shell/data/intentvc_caption.json")
# The word that the installed package adds to the shell.
PROGRAM = "intentvcnet"
# The name of a flag, in a word that may hold its value too.
_FLAG = re.compile(r"^--[a-z][a-z0-9_-]*(?==|$)")
# Imported by peft and DeepSpeed, they tell what they cannot use.
_TALKATIVE = ("bitsandbytes", "torch.utils.cpp_extension")
# Numbers with commas of which the first is below zero: argparse takes them for a flag.
_BELOW_ZERO = re.compile(r"^-\.?[0-9][^ ]*,")


def program() -> str:
    """What the command line was started as."""
    return PROGRAM if Path(sys.argv[0]).name == PROGRAM else "python -m internvl_chat"


def quieten() -> None:
    """Keep the libraries' warnings from the screen, so that ours are seen.

    Whoever wants them asks for them as Python and transformers provide: PYTHONWARNINGS, TRANSFORMERS_VERBOSITY.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def libraries_quiet() -> Iterator[None]:
    """As `quieten`, for a while: in a program or a notebook of the user's, whose settings stay what they were."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(max(logger.level, logging.ERROR))
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def as_declared(words: Sequence[str]) -> list[str]:
    """The words of a command line as argparse reads them.

    `--num-frames` is `--num_frames`, and `--box -5,1,9,9` is `--box=-5,1,9,9`; what stands behind `--` is left alone.
    """
    end = words.index("--") if "--" in words else len(words)
    written: list[str] = []
    for word in words[:end]:
        if written and written[-1].startswith("--") and "=" not in written[-1] and _BELOW_ZERO.match(word):
            written[-1] += f"={word}"
        else:
            written.append(_FLAG.sub(lambda name: name[0][:2] + name[0][2:].replace("-", "_"), word))
    return [*written, *words[end:]]


def meant(word: str, known: Iterable[str], otherwise: str) -> str:
    """What was probably meant by a word that is not known, as the end of a message."""
    similar = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {similar[0]}?" if similar else otherwise


class Parser(argparse.ArgumentParser):
    """A parser that never guesses a flag from its beginning, and whose last word is what was wrong."""

    def __init__(self, **settings: Any) -> None:
        shown = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
        super().__init__(**{**shown, **settings})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but what nobody knows is an error of the command that it was given to."""
        words = as_declared(sys.argv[1:] if args is None else args)
        self._refuse_unknown(words)
        known, unknown = super().parse_known_args(words, namespace)
        if unknown:
            self.error(f"{unknown[0]}: is not known here: leave it out")
        is_in_checkout = getattr(known, "meta", None) == DEFAULT_META and getattr(known, "root", None) is None
        if is_in_checkout and not DEFAULT_META.is_file():
            self.error("--meta META.json: say which data is meant; annotate and convert-data write such a file")
        return known, unknown

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        """End at a flag that nobody knows: argparse would complain of the word behind it, where it has a place for one.

        What follows a command, and what is handed on whole, is judged by whoever reads it.
        """
        if any(action.nargs in (argparse.PARSER, argparse.REMAINDER) for action in self._actions):
            return
        known = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
        names = [word.partition("=")[0] for word in words[: words.index("--") if "--" in words else len(words)]]
        # What holds a space is a value to argparse, such as flags that are handed on.
        flags = [name for name in names if name.startswith("--") and " " not in name]
        unknown = next((flag for flag in flags if flag not in known), None)
        if unknown is not None:
            self.error(f"{unknown}: is not known here: {meant(unknown, known, 'leave it out')}")

    def error(self, message: str) -> NoReturn:
        """End with one line of usage and one of what was wrong."""
        places = [str(a.metavar or a.dest) for a in self._actions if not a.option_strings]
        usage = " ".join([self.prog, *places, "[flags]"])
        self.exit(2, f"usage: {usage}; '{self.prog} --help' explains them\nerror: {message}\n")


class PrintCompletion(argparse.Action):
    """Prints what a shell completes the installed program's commands and flags by, and ends."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: Any = None) -> None:
        try:
            import shtab
        except ImportError:
            parser.error("--print_completion needs shtab: pip install -r requirements/completion.txt")
        # The shell knows the program by the word that the package adds.
        parser.prog = PROGRAM
        sys.stdout.write(shtab.complete(parser, values) + "\n")
        parser.exit()
