"""docs/commands.md says what the parsers say."""

from __future__ import annotations

from tests.commands_page import PAGE, page


def test_the_page_is_what_the_commands_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.commands_page"
