"""A run's listeners to its provider, for the code that sends requests and reads responses within the run's tasks.

Any byte of a response counts as activity, so that the idle timeout sees a provider that is alive. The body of each
request for a reply is kept for those who look at the run.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import httpx

Listener = Callable[[], None]
RequestListener = Callable[[bytes], None]
_listener: ContextVar[Listener | None] = ContextVar("activity_listener", default=None)
_request_listener: ContextVar[RequestListener | None] = ContextVar("request_listener", default=None)


@contextmanager
def activity_listener(listener: Listener) -> Iterator[None]:
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


@contextmanager
def request_listener(listener: RequestListener) -> Iterator[None]:
    """Calls the listener with the body of each request for a reply in this task and in the tasks that it creates."""
    token = _request_listener.set(listener)
    try:
        yield
    finally:
        _request_listener.reset(token)


def report_request(body: bytes) -> None:
    """Reports a request for a reply that is about to be sent."""
    if listener := _request_listener.get():
        listener(body)


async def report_http_request(request: httpx.Request) -> None:
    """Reports a request, as an event hook of an httpx client."""
    report_request(request.content)
