"""A run's append-only log: one writer, any number of followers, each from any place, live or after the end.

A follower holds only an index, so that a slow one costs nothing and holds nobody up. In-process; a log shared by
several machines would offer the same three methods. Belongs to one event loop.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

from runs.clock import Clock, steady_clock
from runs.events import Entry, Event, memory_bytes


class RunLog:
    def __init__(self, run_id: str, clock: Clock | None = None) -> None:
        """`clock` gives epoch seconds, and never goes back."""
        self.run_id = run_id
        self.entries: list[Entry] = []
        self.memory_bytes = 0
        """About how much memory the entries take."""
        self.closed_at: float | None = None
        """When it was closed, in seconds of `time.monotonic`, which compares the logs of one process."""
        self.followers = 0
        self._clock = clock or steady_clock()
        self.left_at = self._clock()
        """When the last follower left (or the log was made), epoch seconds."""
        self._waiting: set[asyncio.Future[bool]] = set()

    @property
    def closed(self) -> bool:
        return self.closed_at is not None

    def prepare(self, events: Iterable[Event]) -> list[Entry]:
        """Entries that take the next places, not yet in the log.

        Their time is in whole milliseconds, as a record tells it: whoever reads the record finds the same figures.
        """
        at, first = math.floor(self._clock() * 1000) / 1000, len(self.entries) + 1
        return [Entry(first + i, self.run_id, at, event) for i, event in enumerate(events)]

    def append(self, *events: Event) -> list[Entry]:
        """Adds events, in order, and wakes the followers. Raises RuntimeError on a closed log."""
        entries = self.prepare(events)
        self.publish(entries)
        return entries

    def publish(self, entries: Sequence[Entry]) -> None:
        """Adds prepared entries; they must still fit the end of the log."""
        if self.closed:
            raise RuntimeError("the log of an ended run takes no more events")
        if entries and entries[0].seq != len(self.entries) + 1:
            raise RuntimeError("prepared entries no longer fit the end of the log")
        self.entries.extend(entries)
        self.memory_bytes += sum(memory_bytes(entry.event) for entry in entries)
        self._wake()

    def close(self) -> None:
        """Says that nothing follows; every follower ends after what is there."""
        self.closed_at = time.monotonic()
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiting:
            _resolve(waiter, True)
        self._waiting.clear()

    async def follow(
        self, after: int = 0, wake_s: Callable[[], float] | None = None
    ) -> AsyncGenerator[Sequence[Entry], None]:
        """Yields all that is waiting after `seq` `after`, again and again until the log is closed.

        With `wake_s` it also yields an empty batch whenever nothing came for as many seconds as that says, so that a
        caller can catch up, or notice that its reader has gone. Hold it in `contextlib.aclosing`.
        """
        at = max(0, after)
        self.followers += 1
        try:
            while True:
                batch = self.entries[at:]
                if batch:
                    at += len(batch)
                    yield batch
                elif self.closed:
                    return
                else:
                    if not await self._wait(wake_s and wake_s()):
                        yield ()
        finally:
            self.followers -= 1
            self.left_at = self._clock()

    async def _wait(self, seconds: float | None) -> bool:
        """Whether something came before so many seconds were over; without `asyncio.wait`, for it is once a token."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiting.add(waiter)
        over = None if seconds is None else loop.call_later(seconds, _resolve, waiter, False)
        try:
            return await waiter
        finally:
            if over:
                over.cancel()
            self._waiting.discard(waiter)


def _resolve(waiter: "asyncio.Future[bool]", came: bool) -> None:
    if not waiter.done():
        waiter.set_result(came)
