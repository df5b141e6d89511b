"""Threads for blocking work: a bounded number for each use, so that one use never waits for another.

All are daemon threads: the end of the process waits for none.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")
_NAME_LOOKUPS = {"getaddrinfo", "getnameinfo", "_getaddrinfo_debug"}
"""Functions that an event loop runs in its default executor by itself."""
_NAMES_AT_ONCE, _OTHERS_AT_ONCE = 32, 32


class Threads(Executor):
    """An executor of at most `most` threads, each of which ends when it has no work.

    Further functions wait in order; with a `refusal`, `submit` raises RuntimeError with that text instead.
    """

    def __init__(self, name: str, most: int, refusal: str | None = None) -> None:
        self._name, self._most, self._refusal = name, most, refusal
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._busy = 0
        """The number of threads that run a function."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Schedules a function."""
        future: Future[Any] = Future()
        work = partial(_settle, future, partial(function, *args, **kwargs))
        with self._lock:
            if self._busy < self._most:
                threading.Thread(target=self._work, args=(work,), name=self._name, daemon=True).start()
                self._busy += 1
            elif self._refusal:
                raise RuntimeError(self._refusal)
            else:
                self._waiting.append(work)
        return future

    async def run(self, function: Callable[..., T], /, *args: Any) -> T:
        """The function's result, as with `asyncio.to_thread`. A cancel does not end a function that has begun."""
        work = partial(copy_context().run, function, *args)
        return await asyncio.get_running_loop().run_in_executor(self, work)

    def _work(self, work: Callable[[], None] | None) -> None:
        while work:
            work()
            with self._lock:
                work = self._waiting.popleft() if self._waiting else None
                self._busy -= work is None


_WORK = Threads("work on long conversations", 2)


async def in_thread(long: bool, function: Callable[..., T], /, *args: Any) -> T:
    """The result of a pure function, which runs in a thread where it is `long` enough to block the event loop."""
    return await _WORK.run(function, *args) if long else function(*args)


def _settle(future: "Future[Any]", function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except BaseException as e:
        future.set_exception(e)
    else:
        future.set_result(result)


_chosen: ContextVar[Threads | None] = ContextVar("threads", default=None)
_separated: WeakSet[asyncio.AbstractEventLoop] = WeakSet()


def use_threads(threads: Threads) -> None:
    """Makes these threads the default executor of the current task."""
    separate_threads()
    _chosen.set(threads)


def separate_threads() -> None:
    """Gives the running loop a default executor that looks up names in threads of their own."""
    loop = asyncio.get_running_loop()
    if loop not in _separated:
        _separated.add(loop)
        loop.set_default_executor(_Separated())


class _Separated(ThreadPoolExecutor):
    """A default executor that delegates to `Threads`. asyncio accepts only a ThreadPoolExecutor here."""

    def __init__(self) -> None:
        super().__init__(1)
        self._names, self._others = Threads("names", _NAMES_AT_ONCE), Threads("others", _OTHERS_AT_ONCE)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        names = getattr(function, "__name__", "") in _NAME_LOOKUPS
        threads = self._names if names else _chosen.get() or self._others
        return threads.submit(function, *args, **kwargs)
