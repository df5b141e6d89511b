"""Signs of life of a provider: any byte of its answer is one, also where it holds nothing of the reply.

The run registers a listener; the code that reads the response calls it. Each call of a model has the listener of the
task that it was made in.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_listener: ContextVar[Callable[[], None] | None] = ContextVar("sign_of_life", default=None)


@contextmanager
def activity_listener(listener: Callable[[], None]) -> Iterator[None]:
    """Calls the listener at each sign of life in this task, and in those that it makes."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def report_activity() -> None:
    """Tells that bytes have come."""
    if listener := _listener.get():
        listener()
