"""Retries, fallbacks and the idle timeout of a reply.

A failed attempt is only repeated until the run has output: what a visitor has seen is never taken back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from backends import Backend
from backends.activity import activity_listener
from backends.errors import idle_timeout
from runs.errors import ChatError, split_message
from runs.live import LiveRun

ATTEMPTS = 3
LONGEST_WAIT_S = 20.0
"""Longest `retry_after` of a provider that is waited for, in seconds."""
_RETRIED = {"rate_limited", "backend_unavailable"}
_FALLEN_BACK = {"missing_key", "authentication", "rate_limited", "backend_unavailable", "timeout"}
_TIMED = {"waiting", "thinking", "streaming", "stalled"}
_TICK_S = 0.2
_CANCEL_AGAIN_S = 0.05
_BACKOFF = wait_exponential_jitter(initial=1.0, max=8.0, jitter=0.5)

Answer = Callable[[Backend], Awaitable[None]]


async def run_with_fallbacks(run: LiveRun, backends: Sequence[Backend], answer: Answer) -> None:
    """Lets the first backend answer; each that fails without output is followed by the next.

    Raises the ChatError of the last one.
    """
    failed: list[ChatError] = []
    for backend, following in zip(backends, [*backends[1:], None], strict=True):
        try:
            await _with_retries(run, backend, answer)
            return
        except ChatError as e:
            if following is None or run.has_output or e.code not in _FALLEN_BACK:
                raise
            run.end_open_steps(e.message)
            run.report_backend(following.name, following.chosen_model, f"{e.message} {following.name} answers instead")
            failed.append(e)
        finally:
            if failed and run.has_output:
                why = " ".join(e.message for e in failed)
                run.notes.insert(0, f"{backend.name} answered instead of {backends[0].name}. {why}")


async def _with_retries(run: LiveRun, backend: Backend, answer: Answer) -> None:
    def retried(error: BaseException) -> bool:
        if not isinstance(error, ChatError) or not error.retryable or error.code not in _RETRIED or run.has_output:
            return False
        return (error.retry_after or 0) <= LONGEST_WAIT_S

    def report(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        message = error.message if isinstance(error, ChatError) else ""
        wait = state.next_action.sleep if state.next_action else 0
        run.end_open_steps(message)
        cause = split_message(message)[0].rstrip(".:")  # the advice to try again is followed already
        retry = f"Retrying: {state.attempt_number + 1} of {ATTEMPTS} in {wait:.1f} s"
        run.set_status("waiting", f"{cause}. {retry}" if cause else retry)

    retrying = AsyncRetrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=_wait,
        retry=retry_if_exception(retried),
        before_sleep=report,
        reraise=True,
    )
    async for attempt in retrying:
        with attempt:
            run.note_activity()  # the pause before a retry is no silence of the backend
            await answer(backend)


def _wait(state: RetryCallState) -> float:
    """Returns the backoff in seconds, at least the provider's `retry_after`."""
    error = state.outcome.exception() if state.outcome else None
    retry_after = error.retry_after if isinstance(error, ChatError) else None
    return max(_BACKOFF(state), retry_after or 0.0)


async def with_idle_timeout(run: LiveRun, backend: Backend, work: Awaitable[None]) -> None:
    """Awaits the work. Raises ChatError `timeout` where the backend sends nothing for longer than its timeout.

    A cancellation can be lost in a client library, so it is repeated until the work has ended.
    """
    with activity_listener(run.note_activity):
        task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_TICK_S)
            if run.state.phase in _TIMED and run.now() - run.last_activity > backend.timeout and not task.done():
                await _cancelled(task)
                raise idle_timeout(backend.name, backend.timeout)
        task.result()
    finally:
        await _cancelled(task)


async def _cancelled(task: "asyncio.Future[None]") -> None:
    """Cancels a task until it has ended; a cancellation of the caller meanwhile is raised after that."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        task.cancel()
        try:
            await asyncio.wait({task}, timeout=_CANCEL_AGAIN_S)
        except asyncio.CancelledError as e:
            cancelled = e
    if not task.cancelled():
        task.exception()  # else asyncio logs that the exception was never retrieved
    if cancelled:
        raise cancelled
