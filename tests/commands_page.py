"""docs/commands.md, made from the parsers: `python -m tests.commands_page` writes it anew."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from internvl_chat.__main__ import COMMAND_GROUPS, build_parser
from tests.helpers import ROOT

PAGE = ROOT / "docs" / "commands.md"
_HEAD = """# Commands

Made from the commands themselves (`python -m tests.commands_page`). Every command explains itself with `--help`.
"""
_SCRIPTS = """## The two scripts of the root

`eval_const.py` is `eval`, and `generate_npy_bboxes.py` is `npy`, under the names that the original's users type.
"""


def page() -> str:
    """The whole page; nothing in it depends on the version of Python or the width of a terminal."""
    (subparsers,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    parts = [_HEAD]
    for purpose, names in COMMAND_GROUPS.items():
        parts.append(f"## To {purpose}\n")
        parts += [_section(f"python -m internvl_chat {name}", subparsers.choices[name]) for name in names]
    parts.append(_SCRIPTS)
    return "\n".join(parts)


def _section(command: str, parser: argparse.ArgumentParser) -> str:
    text = (parser.description or "").strip()
    summary, _, rest = text.partition("\n\n")
    body = f"\n```text\n{rest.rstrip()}\n```\n" if rest else ""
    rows = "\n".join(_rows(parser))
    return f"### `{command}`\n\n{' '.join(summary.split())}\n{body}\n| flag | meaning |\n|---|---|\n{rows}\n"


def _rows(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS:
            continue
        names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.metavar or action.dest}`"
        choices = f"one of {', '.join(map(str, action.choices))}" if action.choices else ""
        needed = "required" if action.required and action.option_strings else ""
        values = {**vars(action), "prog": parser.prog}
        meaning = " ".join(((action.help or "") % values).split())
        yield f"| {names} | {'; '.join(filter(None, (meaning, choices, needed)))} |"


def main() -> None:
    Path(PAGE).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
