"""Which tab of a browser works in a session: the one that opened it last.

A browser has one session, which all its tabs find. Two that work in it by turns would each show what the other has
changed since, so the older one is told, and goes on after a reload.
"""

from __future__ import annotations

import secrets

from internvl_chat.contracts import UserError

_LOST = (
    "this session is open in another tab of this browser: reload this page to go on here, which takes it from "
    "that tab, or start over with an empty session"
)


class Tabs:
    """The tab of each session. A place is what one tab keeps: the session's id and a mark of the tab's own."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}

    def open(self, session: str) -> str:
        """The place of the tab that opens a session now; other tabs have it no more."""
        self._marks[session] = secrets.token_hex(8)
        return f"{session} {self._marks[session]}"

    def session_at(self, place: str) -> str:
        """The session that a tab works in; a tab from before the server started anew goes on.

        Raises:
            UserError: another tab opened it since.
        """
        session, _, mark = place.partition(" ")
        # None but a tab that has opened the session knows its id.
        if self._marks.setdefault(session, mark) != mark:
            raise UserError(_LOST)
        return session
