"""Why a request is not answered, in the form in which OpenAI's clients read it."""

from __future__ import annotations

from typing import Any

from internvl_chat.contracts import UserError

_TYPES = {
    401: "authentication_error",
    408: "timeout_error",
    429: "rate_limit_error",
    504: "timeout_error",
}


class Refusal(UserError):
    """A request that cannot be answered: HTTP status, a word for programs, and the field that is at fault.

    Args:
        retry_after_s: when the client may try again.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        if status in (408, 413):
            # What is left of the body is not read.
            self.headers["Connection"] = "close"

    def body(self) -> dict[str, Any]:
        """The reply's JSON."""
        return error_body(str(self), self.status, self.param, self.code)


def error_body(message: str, status: int, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's form."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
