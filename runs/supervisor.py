"""The supervisor of a live run: it runs the work as a task, watches the run's limits, and ends it.

A run ends when its work ends or when it is stopped: by the user, by a limit, because nobody follows it, or at shutdown.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from runs import events
from runs.errors import INTERNAL, ChatError
from runs.events import Entry, StopReason

if TYPE_CHECKING:
    from runs.live import LiveRun

logger = logging.getLogger(__name__)
log = structlog.get_logger(__name__)

_TICK_S = 0.25
_CANCEL_AGAIN_S = 0.05
"""A cancel can be lost on its way (asyncio.wait_for of Python 3.11 loses some), so it is repeated."""
_SAVE_S = 3.0
_WRITING = ("streaming", "thinking")
_WORKING = "No token for a while; the server is still working"

Work = Callable[["LiveRun"], Awaitable[None]]
Save = Callable[["LiveRun", Sequence[Entry]], Awaitable[None]]


class Supervisor:
    """Supervises one run."""

    def __init__(self, run: "LiveRun") -> None:
        self._run = run
        self.task: asyncio.Task[None] | None = None
        """The task of the whole run, up to its last event."""
        self._work: asyncio.Task[None] | None = None
        self._reason: StopReason | None = None

    def start(self, work: Work, save: Save | None) -> None:
        """Starts the task."""
        self.task = asyncio.create_task(self._supervise(work, save), name=f"run {self._run.id}")
        self.task.add_done_callback(self._forget_work)

    def _forget_work(self, task: asyncio.Task[None]) -> None:
        """Lets the memory of the work be freed: an ended run is kept, and the traceback of its error has the input."""
        self._work = None

    def request_stop(self, reason: StopReason) -> None:
        """Stops the run without waiting for its end."""
        if self._reason is None:
            self._reason = reason
        if self._work:
            self._work.cancel()

    async def stop(self, reason: StopReason) -> None:
        """Stops the run and waits for its end."""
        if self._reason is None and not self._run.closing:
            self._reason = reason
        while self._work and not self._work.done():
            self._work.cancel()
            await asyncio.wait({self._work}, timeout=_CANCEL_AGAIN_S)
        if self.task:
            await asyncio.wait({self.task})

    async def _supervise(self, work: Work, save: Save | None) -> None:
        run = self._run
        structlog.contextvars.bind_contextvars(run_id=run.id)  # in this task and those that it creates
        log.info("run started", backend=run.backend, memory=run.memory)
        self._work = asyncio.create_task(_call(work, run), name=f"work of {run.id}")
        if self._reason:  # stopped before it began
            self._work.cancel()
        try:
            while not self._work.done():
                await asyncio.wait({self._work}, timeout=_TICK_S)
                self._watch()
        except asyncio.CancelledError:
            # the event loop shuts down: the run still gets its last event, then the cancel continues
            self._reason = self._reason or "shutdown"
            self._work.cancel()
            await asyncio.wait({self._work}, timeout=_SAVE_S)
            run.close(run.closing_entries(self._last_event()))
            raise
        closing = run.closing_entries(self._last_event())
        try:
            run.unsaved = await self._save(save, closing) if save else None
            if run.unsaved:
                status = events.Status(run.state.phase, run.unsaved)
                closing = run.log.prepare([status, *(entry.event for entry in closing)])
        finally:
            run.close(closing)

    async def _save(self, save: Save, closing: Sequence[Entry]) -> str | None:
        """Saves the reply; returns a sentence for people if that failed."""
        try:
            await asyncio.wait_for(save(self._run, closing), _SAVE_S)
            return None
        except ChatError as e:
            return e.message
        except TimeoutError:
            return "This reply is not saved yet: the database did not answer in time."
        except Exception:
            logger.exception("run %s could not be saved", self._run.id)
            return "This reply is not saved yet: the database failed."

    def _watch(self) -> None:
        """Checks what depends on time: the time limit, followers, a stall."""
        if self._work is None or self._work.done():
            return
        run, now = self._run, self._run.now()
        if self._reason:
            self._work.cancel()
        elif now - run.state.started > run.lifetime.seconds:
            self.request_stop("limit")
        elif self._is_abandoned(now):
            self.request_stop("abandoned")
        else:
            self._watch_silence(now)

    def _watch_silence(self, now: float) -> None:
        """Emits a status after `stall_s` seconds without bytes, or with keep-alives alone."""
        run, phase, stall_s = self._run, self._run.state.phase, self._run.lifetime.stall_s
        if now - run.last_activity > stall_s:
            if phase in _WRITING:
                run.report("stalled", f"No token for {stall_s:.0f} s; the backend may be stuck")
        elif now - run.last_event > stall_s and phase in ("waiting", *_WRITING, "stalled"):
            if phase == "stalled":
                phase = run.state.phase_spans[-2].phase
            if (phase, _WORKING) != (run.state.phase, run.state.status_text):
                run.report(phase, _WORKING)

    def _is_abandoned(self, now: float) -> bool:
        run = self._run
        return (
            run.owner is None
            and run.requester.visitor is None
            and not run.state.approvals
            and not run.log.followers
            and now - run.log.left_at > run.lifetime.abandoned_s
        )

    def _last_event(self) -> events.Last:
        assert self._work is not None
        run = self._run
        usage, timing = run.usage(), run.state.timing(run.now())
        if self._work.cancelled() or not self._work.done():
            return events.Stopped(run.text, self._reason or "shutdown", usage, timing)
        error = self._work.exception()
        if error is None:
            return events.Complete(run.text, usage, timing)
        if self._reason:  # a library turned the cancel into another exception
            return events.Stopped(run.text, self._reason, usage, timing)
        if isinstance(error, ChatError):
            return events.Error(error.code, error.message, error.retryable, run.text, error.retry_after)
        logger.error("run %s failed", run.id, exc_info=error)
        return events.Error("internal", INTERNAL, True, run.text)


async def _call(work: Work, run: "LiveRun") -> None:
    await work(run)
