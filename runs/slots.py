"""A line: some may be at work at once, whoever comes later waits, first come, first served."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

PositionListener = Callable[[int], None]
"""Told the place in line, 1 for the next, each time that it changes."""


@dataclass(eq=False, slots=True)
class _Waiting:
    turn: "asyncio.Future[None]"
    tell: PositionListener


class Slots:
    """`places` for those at work; None for as many as come. Belongs to one event loop."""

    def __init__(self, places: int | None = None) -> None:
        self._free = places
        self._waiting: deque[_Waiting] = deque()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def acquire(self, tell: PositionListener) -> AsyncGenerator[None, None]:
        """Holds a place while the work in it lasts; waits for one before."""
        if self._free is None:
            yield
            return
        await self._enter(tell)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, tell: PositionListener) -> None:
        if self._free and not self._waiting:
            self._free -= 1
            return
        one = _Waiting(asyncio.get_running_loop().create_future(), tell)
        self._waiting.append(one)
        try:
            tell(len(self._waiting))
            await one.turn
        except BaseException:
            if one.turn.done() and not one.turn.cancelled():
                self._leave()  # it was called up, and cancelled before it could come
            elif one in self._waiting:
                self._waiting.remove(one)
                self._tell_all()
            raise

    def _leave(self) -> None:
        """Gives the place to the next in line."""
        while self._waiting:
            one = self._waiting.popleft()
            if not one.turn.done():
                one.turn.set_result(None)
                self._tell_all()
                return
        assert self._free is not None
        self._free += 1

    def _tell_all(self) -> None:
        for place, one in enumerate(self._waiting, 1):
            one.tell(place)
