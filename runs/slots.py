"""A bounded number of slots with a queue in front: first come, first served."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

PositionListener = Callable[[int], None]
"""A callback that gets the position in the queue, 1 for the next, each time that it changes."""


@dataclass(eq=False, slots=True)
class _Waiter:
    turn: "asyncio.Future[None]"
    on_position: PositionListener


class Slots:
    """`count` slots; None is unbounded. An instance belongs to one event loop."""

    def __init__(self, count: int | None = None) -> None:
        self._count = self._free = count
        self._queue: deque[_Waiter] = deque()

    def __len__(self) -> int:
        """The length of the queue."""
        return len(self._queue)

    @property
    def idle(self) -> bool:
        """True if all slots are free."""
        return self._free == self._count and not self._queue

    @property
    def available(self) -> bool:
        """True if a slot is free, and no one waits for it."""
        return self._free is None or (self._free > 0 and not self._queue)

    @asynccontextmanager
    async def acquire(self, on_position: PositionListener) -> AsyncGenerator[None, None]:
        """Holds a slot within the block; waits for one first."""
        if self._free is None:
            yield
            return
        await self._wait(on_position)
        try:
            yield
        finally:
            self._release()

    async def _wait(self, on_position: PositionListener) -> None:
        if self._free and not self._queue:
            self._free -= 1
            return
        waiter = _Waiter(asyncio.get_running_loop().create_future(), on_position)
        self._queue.append(waiter)
        try:
            on_position(len(self._queue))
            await waiter.turn
        except BaseException:
            if waiter.turn.done() and not waiter.turn.cancelled():
                self._release()  # it got a slot, and was cancelled before it could use it
            elif waiter in self._queue:
                self._queue.remove(waiter)
                self._report_positions()
            raise

    def _release(self) -> None:
        """Passes the slot to the next waiter, or frees it."""
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.turn.done():
                waiter.turn.set_result(None)
                self._report_positions()
                return
        assert self._free is not None
        self._free += 1

    def _report_positions(self) -> None:
        for position, waiter in enumerate(self._queue, 1):
            waiter.on_position(position)
