"""A run's append-only log: one writer, any number of followers, each from any event, live or after the end.

A follower holds only an index, so a slow one costs nothing and delays nobody. In-process; a log shared by several
machines would offer the same methods. A log belongs to one event loop.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

from runs.events import Entry, Event, memory_bytes

Clock = Callable[[], float]


def steady_clock(wall: Clock = time.time, monotonic: Clock = time.monotonic) -> Clock:
    """A clock in epoch seconds that reads the wall clock once and then runs on the monotonic clock.

    Differences of its times are true durations, even where the wall clock jumps.
    """
    offset = wall() - monotonic()
    return lambda: offset + monotonic()


class RunLog:
    """The events of one run, in order."""

    def __init__(self, run_id: str, clock: Clock | None = None) -> None:
        """`clock` gives epoch seconds and never goes back."""
        self.run_id = run_id
        self.entries: list[Entry] = []
        self.memory_bytes = 0
        """An estimate of the memory that the entries take."""
        self.closed_at: float | None = None
        """When it was closed, in seconds of `time.monotonic`, which compares the logs of one process."""
        self.followers = 0
        self._clock = clock or steady_clock()
        self.left_at = self._clock()
        """When the last follower left, or the log was created, in epoch seconds."""
        self._waiters: set[asyncio.Future[bool]] = set()

    @property
    def closed(self) -> bool:
        """True if no more events follow."""
        return self.closed_at is not None

    def prepare(self, events: Iterable[Event]) -> list[Entry]:
        """Entries with the next sequence numbers, not yet in the log.

        Their time is in whole milliseconds, as in a record: a reader of the record computes the same figures.
        """
        at, first = math.floor(self._clock() * 1000) / 1000, len(self.entries) + 1
        return [Entry(first + i, self.run_id, at, event) for i, event in enumerate(events)]

    def append(self, *events: Event) -> list[Entry]:
        """Adds events in order and wakes the followers. Raises RuntimeError on a closed log."""
        entries = self.prepare(events)
        self.publish(entries)
        return entries

    def publish(self, entries: Sequence[Entry]) -> None:
        """Adds prepared entries. Raises RuntimeError where they do not fit the end of the log, or it is closed."""
        if self.closed:
            raise RuntimeError("the log of an ended run takes no more events")
        if entries and entries[0].seq != len(self.entries) + 1:
            raise RuntimeError("prepared entries no longer fit the end of the log")
        self.entries.extend(entries)
        self.memory_bytes += sum(memory_bytes(entry.event) for entry in entries)
        self._wake()

    def close(self) -> None:
        """Marks the end; every follower ends after the last entry."""
        self.closed_at = time.monotonic()
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            _resolve(waiter, True)
        self._waiters.clear()

    async def follow(
        self, after: int = 0, wake_s: Callable[[], float] | None = None
    ) -> AsyncGenerator[Sequence[Entry], None]:
        """Yields batches of the entries after sequence number `after`, until the log is closed.

        With `wake_s` it also yields an empty batch after that many seconds without an entry, so that the caller can
        check its own connection. Hold it in `contextlib.aclosing`.
        """
        position = max(0, after)
        self.followers += 1
        try:
            while True:
                batch = self.entries[position:]
                if batch:
                    position += len(batch)
                    yield batch
                elif self.closed:
                    return
                elif not await self._wait(wake_s and wake_s()):
                    yield ()
        finally:
            self.followers -= 1
            self.left_at = self._clock()

    async def _wait(self, seconds: float | None) -> bool:
        """Whether an entry came within the seconds; without `asyncio.wait`, since this runs once for each token."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiters.add(waiter)
        timeout = None if seconds is None else loop.call_later(seconds, _resolve, waiter, False)
        try:
            return await waiter
        finally:
            if timeout:
                timeout.cancel()
            self._waiters.discard(waiter)


def _resolve(waiter: "asyncio.Future[bool]", came: bool) -> None:
    if not waiter.done():
        waiter.set_result(came)
