"""Provider activity: any byte of a response counts, so that the idle timeout sees a provider that is alive.

The run registers a listener; the code that reads the response reports activity to the listener of its task.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_listener: ContextVar[Callable[[], None] | None] = ContextVar("activity_listener", default=None)


@contextmanager
def activity_listener(listener: Callable[[], None]) -> Iterator[None]:
    """Calls the listener at each activity in this task and in the tasks that it creates."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def report_activity() -> None:
    """Reports that bytes have arrived."""
    if listener := _listener.get():
        listener()
