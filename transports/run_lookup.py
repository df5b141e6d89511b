"""Finds a run by its id, for the visitors that have access: a live one, an ended one in memory, or a stored one."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.turns import Turns
from memory.record_cache import RecordEnd, RecordLease, StoredEvent
from runs.events import Entry
from runs.example_run import EXAMPLE_ENTRIES, EXAMPLE_ID
from runs.live import LiveRun
from runs.record import decode
from runs.requester import Requester


@dataclass(frozen=True, slots=True)
class RunHandle:
    """A run without its events. `live` is None for a run that is only in the store."""

    run_id: str
    conversation_id: str
    live: LiveRun | None

    @property
    def ended(self) -> bool:
        """True once the run has ended."""
        return self.live is None or self.live.ended

    async def end(self, turns: Turns) -> RecordEnd:
        """The number of events so far, and the phase. Raises ChatError `not_found`."""
        if self.live:
            return RecordEnd(len(self.live.log.entries), self.live.state.phase)
        if self.run_id == EXAMPLE_ID:
            return RecordEnd(len(EXAMPLE_ENTRIES), "complete")
        return await turns.records.end(self.run_id)


@dataclass(frozen=True, slots=True)
class RunEvents(RunHandle):
    """A run with its events so far. Keep this object while the events are read."""

    lines: Sequence[Entry | StoredEvent]
    reading: RecordLease | None = None
    """Keeps the stored record in memory."""

    @classmethod
    def of(cls, run: LiveRun) -> "RunEvents":
        """The events of a run in memory."""
        return cls(run.id, run.conversation_id, run, run.log.entries)

    @property
    def entries(self) -> list[Entry]:
        """The decoded events. Raises ValueError for a damaged record."""
        return [line if isinstance(line, Entry) else decode(line.json) for line in self.lines]


async def get_run(turns: Turns, run_id: str, visitor: str | None) -> RunHandle:
    """Finds a run. Raises ChatError `not_found` for another visitor's run as for one that does not exist.

    A run is accessible with its conversation, and is deleted with it, even while it is in memory. The example run is
    everybody's and has no conversation.
    """
    if run_id == EXAMPLE_ID:
        return RunHandle(run_id, "", None)
    run = turns.runs.find(run_id)
    if run and not run.stored:
        turns.runs.get(run_id, visitor)
        return RunHandle(run_id, run.conversation_id, run)
    return RunHandle(run_id, await turns.continuations.conversation_of(run_id, visitor), run)


async def load_run(turns: Turns, run_id: str, requester: Requester) -> RunEvents:
    """Finds a run with its events. Raises ChatError `not_found`, or `busy` where too many long records are read."""
    return await load_run_events(turns, await get_run(turns, run_id, requester.visitor), requester)


async def load_run_events(turns: Turns, run: RunHandle, requester: Requester) -> RunEvents:
    """Loads the events of a run. Raises ChatError as `load_run` does."""
    if run.live:
        return RunEvents.of(run.live)
    if run.run_id == EXAMPLE_ID:
        return RunEvents(run.run_id, run.conversation_id, None, EXAMPLE_ENTRIES)
    reading = await turns.records.read(run.run_id, requester.network)
    return RunEvents(run.run_id, run.conversation_id, None, reading.record, reading)
