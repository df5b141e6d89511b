"""Making a turn succeed: waiting while a backend is silent, trying again, and going on with another backend.

All of it only until the run has said its first word: what a visitor has seen is never taken back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from backends import Backend
from backends.activity import activity_listener
from backends.errors import idle_timeout
from runs.errors import ChatError
from runs.live import LiveRun

ATTEMPTS = 3
LONGEST_WAIT_S = 20.0
"""A provider that asks to wait longer is not waited for."""
_AGAIN = {"rate_limited", "backend_unavailable"}
_ANOTHER = {"missing_key", "authentication", "rate_limited", "backend_unavailable", "timeout"}
_SPEAKING = {"waiting", "thinking", "streaming", "stalled"}
_TICK_S = 0.2
_CANCEL_AGAIN_S = 0.05
_BACKOFF = wait_exponential_jitter(initial=1.0, max=8.0, jitter=0.5)

Answer = Callable[[Backend], Awaitable[None]]


async def run_with_fallbacks(run: LiveRun, chain: Sequence[Backend], answer: Answer) -> None:
    """Lets the chain's first backend answer, or the next where it fails before its first word. Raises ChatError."""
    failed: list[ChatError] = []
    for backend, following in zip(chain, [*chain[1:], None], strict=True):
        try:
            await _with_retries(run, backend, answer)
            return
        except ChatError as e:
            if following is None or run.has_output or e.code not in _ANOTHER:
                raise
            run.end_open_steps(e.message)
            run.report_backend(following.name, following.chosen_model, f"{e.message} {following.name} answers instead")
            failed.append(e)
        finally:
            if failed and run.has_output:
                why = " ".join(e.message for e in failed)
                run.notes.insert(0, f"{backend.name} answered instead of {chain[0].name}. {why}")


async def _with_retries(run: LiveRun, backend: Backend, answer: Answer) -> None:
    def again(error: BaseException) -> bool:
        if not isinstance(error, ChatError) or not error.retryable or error.code not in _AGAIN or run.has_output:
            return False
        return (error.retry_after or 0) <= LONGEST_WAIT_S

    def tell(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        message = error.message if isinstance(error, ChatError) else ""
        wait = state.next_action.sleep if state.next_action else 0
        run.end_open_steps(message)
        run.set_status("queued", f"{message} Attempt {state.attempt_number + 1} of {ATTEMPTS} in {wait:.1f} s")

    retrying = AsyncRetrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=_wait,
        retry=retry_if_exception(again),
        before_sleep=tell,
        reraise=True,
    )
    async for attempt in retrying:
        with attempt:
            await answer(backend)


def _wait(state: RetryCallState) -> float:
    """Backoff, and never less than the provider asks for."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, ChatError) else None
    return max(_BACKOFF(state), asked or 0.0)


async def with_idle_timeout(run: LiveRun, backend: Backend, work: Awaitable[None]) -> None:
    """Awaits the work, and ends it with a ChatError `timeout` where the backend gives no sign of life for too long.

    A cancel can be lost on its way through a client library, so it is repeated until the work has ended.
    """
    with activity_listener(run.note_activity):
        task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_TICK_S)
            if run.state.phase in _SPEAKING and run.now() - run.last_activity > backend.timeout and not task.done():
                await _ended(task)
                raise idle_timeout(backend.name, backend.timeout)
        task.result()
    finally:
        await _ended(task)


async def _ended(task: "asyncio.Future[None]") -> None:
    """Cancels until the task has ended; a cancel of our own meanwhile is passed on after that."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        task.cancel()
        try:
            await asyncio.wait({task}, timeout=_CANCEL_AGAIN_S)
        except asyncio.CancelledError as e:
            cancelled = e
    if not task.cancelled():
        task.exception()  # looked at, or asyncio complains that nobody did
    if cancelled:
        raise cancelled
