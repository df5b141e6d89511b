"""The runs of this process: found by id, one at a time in a conversation, bounded in number and in memory."""

import asyncio
from collections.abc import Iterator

from runs.errors import ChatError
from runs.live import LiveRun


class Runs:
    """`most` runs may be live at once; the newest `kept` ended ones stay in memory for late followers."""

    def __init__(self, most: int = 64, kept: int = 64) -> None:
        self._runs: dict[str, LiveRun] = {}
        self._most, self._kept = most, kept

    def live(self) -> Iterator[LiveRun]:
        return (run for run in self._runs.values() if not run.ended)

    def add(self, run: LiveRun) -> None:
        """Takes a run in, at once, so that two sent together cannot both start; lets go of the oldest ended ones.

        Raises ChatError `busy` if a run in this conversation may not start now.
        """
        live = list(self.live())
        if any(other.conversation_id == run.conversation_id for other in live):
            raise ChatError("busy", "A reply is still being written here: stop it, or wait for its end.")
        if len(live) >= self._most:
            message = f"All {self._most} places are taken at the moment: try again in a minute."
            raise ChatError("busy", message, retryable=True)
        self._runs[run.id] = run
        ended = [run.id for run in self._runs.values() if run.ended]
        for run_id in ended[: max(0, len(ended) - self._kept)]:
            del self._runs[run_id]

    def discard(self, run: LiveRun) -> None:
        """Forgets a run that could not be started."""
        self._runs.pop(run.id, None)

    def get(self, run_id: str, visitor: str | None) -> LiveRun:
        """A run that this visitor may see; raises ChatError `not_found` for all others."""
        run = self.find(run_id)
        if run is None or run.owner not in (None, visitor):
            raise ChatError("not_found", "There is no such run, or it is not yours.")
        return run

    def find(self, run_id: str | None) -> LiveRun | None:
        """A run by its id, whosever it is: for our own use only."""
        return self._runs.get(run_id) if run_id else None

    def of(self, conversation_id: str) -> LiveRun | None:
        """The live run of a conversation."""
        return next((run for run in self.live() if run.conversation_id == conversation_id), None)

    async def stop_all(self) -> None:
        """Ends every live run because the process goes down."""
        await asyncio.gather(*(run.stop("shutdown") for run in list(self.live())))
