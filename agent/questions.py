"""Questions of a running tool: it asks the visitor, on the page as an approval does, and continues with the answer."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from runs.events import JSON
from runs.tool_calls import ApprovalAnswer

Ask = Callable[[JSON], Awaitable[ApprovalAnswer]]
"""Asks a question, {question, answer, …}, and returns the answer. `answer` may be a text or, for a form, an object."""

_ask: ContextVar[Ask | None] = ContextVar("ask", default=None)


@contextmanager
def question_handler(ask: Ask) -> Iterator[None]:
    """Sends the questions of tools within this block to the handler."""
    token = _ask.set(ask)
    try:
        yield
    finally:
        _ask.reset(token)


def current_ask() -> Ask | None:
    """Returns the handler of questions; None where no visitor can answer."""
    return _ask.get()
