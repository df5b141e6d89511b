"""The runs of this process: found by id, one at a time in a conversation, bounded in number and in memory."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from runs.errors import NO_RUN, ChatError
from runs.live import LiveRun


class RunRegistry:
    """`most` runs may be live at once. Ended ones stay in memory for late followers, the last to end longest.

    At most `kept` ended runs stay, with at most `kept_bytes` bytes of memory together; the others are read from the
    store. A run that is not stored yet stays until it is.
    """

    def __init__(self, most: int = 64, kept: int = 64, kept_bytes: int = 32_000_000) -> None:
        self._runs: dict[str, LiveRun] = {}
        self._held: set[str] = set()
        self._most, self._kept, self._kept_bytes = most, kept, kept_bytes

    def live(self) -> Iterator[LiveRun]:
        """The runs that have not ended."""
        return (run for run in self._runs.values() if not run.ended)

    def add(self, run: LiveRun) -> None:
        """Adds a run at once, so that of two sent together only one can start; drops the oldest ended runs.

        Raises ChatError `busy` if a run in this conversation may not start now.
        """
        live = list(self.live())
        self._check_free(run.conversation_id)
        if len(live) >= self._most:
            message = "Too many replies are being written or queued: try again in a minute."
            raise ChatError("busy", message, retryable=True)
        self._runs[run.id] = run
        self._drop_ended()

    def _drop_ended(self) -> None:
        stored = (run for run in self._runs.values() if run.ended and not run.unsaved)
        ended = sorted(stored, key=lambda run: run.log.closed_at or 0.0)
        kept = size = 0
        for run in reversed(ended):
            kept, size = kept + 1, size + run.log.memory_bytes + run.requests.memory_bytes
            if kept > self._kept or size > self._kept_bytes:
                del self._runs[run.id]

    def _check_free(self, conversation_id: str) -> None:
        if conversation_id in self._held or self.live_run(conversation_id):
            raise ChatError("busy", "A reply is still being written here: stop it, or wait for its end.")

    @contextmanager
    def hold(self, conversation_id: str) -> Iterator[None]:
        """Prevents new runs in a conversation within the block. Raises ChatError `busy` if one is live."""
        self._check_free(conversation_id)
        self._held.add(conversation_id)
        try:
            yield
        finally:
            self._held.discard(conversation_id)

    def discard(self, run: LiveRun) -> None:
        """Removes a run that could not be started."""
        self._runs.pop(run.id, None)

    def get(self, run_id: str, visitor: str | None) -> LiveRun:
        """A run that this visitor may see. Raises ChatError `not_found` for all others."""
        run = self.find(run_id)
        if run is None or run.owner not in (None, visitor):
            raise ChatError("not_found", NO_RUN)
        return run

    def find(self, run_id: str | None) -> LiveRun | None:
        """A run by its id, regardless of its owner: for internal use only."""
        return self._runs.get(run_id) if run_id else None

    def live_run(self, conversation_id: str) -> LiveRun | None:
        """The live run of a conversation."""
        return next((run for run in self.live() if run.conversation_id == conversation_id), None)

    async def stop_all(self) -> None:
        """Stops every live run because the process shuts down."""
        await asyncio.gather(*(run.stop("shutdown") for run in list(self.live())))
