"""A session belongs to the tab that opened it last."""

from __future__ import annotations

import pytest

from internvl_chat.contracts import UserError
from internvl_chat.web.tabs import Tabs


def test_the_tab_that_opened_a_session_last_has_it() -> None:
    tabs = Tabs()
    first, second = tabs.open("a" * 32), tabs.open("a" * 32)
    other = tabs.open("b" * 32)
    assert tabs.session_at(second) == "a" * 32 and tabs.session_at(other) == "b" * 32
    with pytest.raises(UserError, match="open in another tab"):
        tabs.session_at(first)
    assert tabs.session_at(tabs.open("a" * 32)) == "a" * 32
    with pytest.raises(UserError, match="open in another tab"):
        tabs.session_at(second)


def test_a_tab_goes_on_when_the_server_started_anew() -> None:
    place = Tabs().open("a" * 32)
    tabs = Tabs()
    assert tabs.session_at(place) == "a" * 32
    tabs.open("a" * 32)
    with pytest.raises(UserError, match="open in another tab"):
        tabs.session_at(place)
