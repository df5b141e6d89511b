"""The one error that a visitor may read.

A problem that a person can act on is a `ChatError`; its `code` is part of the wire contract. Any other exception is a
defect: it is logged once with its traceback and sent as `internal`.
"""

import re
from typing import Literal

Code = Literal[
    "invalid_request",
    "authentication",
    "missing_key",
    "not_found",
    "busy",
    "too_large",
    "context_too_long",
    "rate_limited",
    "backend_unavailable",
    "timeout",
    "tool_failed",
    "internal",
]

STATUS: dict[Code, int] = {
    "invalid_request": 400,
    "authentication": 401,
    "missing_key": 401,
    "not_found": 404,
    "busy": 409,
    "too_large": 413,
    "context_too_long": 413,
    "rate_limited": 429,
    "backend_unavailable": 503,
    "timeout": 504,
    "tool_failed": 500,
    "internal": 500,
}
"""The HTTP status of each code, for responses before a stream has started."""

NO_RUN = "There is no such run, or it is not yours. Its reply may be in its conversation."
INTERNAL = "Something went wrong on our side. Try again; if it happens again, the server's log says why."

_CAUSE = re.compile(r"((?:[^.:(]|\([^)]*\)|[.:](?!\s))+[.:])(\s.+)", re.DOTALL)


def split_message(message: str) -> tuple[str, str]:
    """Splits an error's message after its first statement, up to a full stop or a colon: the cause, and what to do."""
    found = _CAUSE.fullmatch(message)
    return (found[1], found[2]) if found else (message, "")


class ChatError(Exception):
    """An error whose `message` is shown to the visitor: it says what to do and holds no stack trace, key or path.

    `retry_after` is in seconds, where the backend named a time.
    """

    def __init__(self, code: Code, message: str, *, retryable: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code: Code = code
        self.message = message
        self.retryable = retryable
        self.retry_after = retry_after
