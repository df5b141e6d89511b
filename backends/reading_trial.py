"""The trial of how a local model reads best, in a process of its own while the model is idle.

It begins when the model has been idle for a while, and ends at once when a message arrives or a reply runs.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from backends.free_memory import free_memory, memory_of_model
from backends.llama_process import LlamaProcess, LoadError
from backends.reading_speed import Reading
from runs.threads import Threads

logger = logging.getLogger(__name__)

_QUIET_S = 10.0
"""Seconds without a message after which it begins; twice as many after each failed one."""
_TRIALS = 6
"""Trials until it is left to the next start: each one ended early, or on a machine that was busy with other things."""


class ReadingTrial:
    """The trial of one model. `use` gets the result; `is_idle` is true while no reply is running or waiting."""

    def __init__(
        self,
        path: Path,
        threads: int,
        most_threads: int,
        *,
        is_idle: Callable[[], bool],
        use: Callable[[Reading], Awaitable[None]],
    ) -> None:
        self._path, self._threads, self._most_threads = path, threads, most_threads
        self._is_idle, self._use = is_idle, use
        self._reader = Threads(f"measure {path.name}", 1)
        self._process: LlamaProcess | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._trials = 0

    @property
    def running(self) -> bool:
        """True while it uses the processors."""
        return self._task is not None and not self._task.done()

    def schedule(self) -> None:
        """Begins a trial when the model has been idle for a while."""
        if self._timer:
            self._timer.cancel()
        wait = _QUIET_S * 2**self._trials
        self._timer = asyncio.get_running_loop().call_later(wait, self._begin)

    def interrupt(self) -> None:
        """Ends a running trial at once, and waits again for a quiet time."""
        if self._process:
            self._process.end()
        if self._timer:
            self.schedule()

    def cancel(self) -> None:
        """Ends the trial for good."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._task:
            self._task.cancel()

    async def close(self) -> None:
        """Ends the trial for good, and waits for that."""
        self.cancel()
        if self._task:
            await asyncio.wait({self._task})

    def _begin(self) -> None:
        if not self._is_idle():
            self.schedule()
            return
        self._timer = None
        free = free_memory()
        if free is not None and free < memory_of_model(self._path):
            return
        self._trials += 1
        self._task = asyncio.create_task(self._measure(), name=f"measure {self._path.name}")

    async def _measure(self) -> None:
        process = self._process = LlamaProcess(self._path.name)
        try:
            reading = await process.measure(self._path, self._reader, self._watch, self._threads, self._most_threads)
        except LoadError as e:
            logger.info("how %s reads best was not measured: %s", self._path.name, e)
            return
        finally:
            self._process = None
            process.end()
        if reading:
            await self._use(reading)
        elif self._trials < _TRIALS:
            self.schedule()

    def _watch(self, share: float | None) -> None:
        if not self._is_idle():
            self.interrupt()
