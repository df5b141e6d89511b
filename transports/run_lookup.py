"""A run by its id, for those who may see it: live, ended and still in memory, or out of the store."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.turns import Turns
from memory.record_cache import RecordEnd, RecordLease, StoredEvent
from runs.errors import NO_RUN, ChatError
from runs.events import Entry
from runs.live import LiveRun
from runs.record import decode
from runs.requester import Requester


@dataclass(frozen=True, slots=True)
class RunHandle:
    """A run without its events. `live` is None for one that is only in the store."""

    run_id: str
    conversation_id: str
    live: LiveRun | None

    @property
    def ended(self) -> bool:
        return self.live is None or self.live.ended

    async def end(self, turns: Turns) -> RecordEnd:
        """How many events there are so far, and the phase that it is in or ended with. Raises ChatError `not_found`."""
        if self.live:
            return RecordEnd(len(self.live.log.entries), self.live.state.phase)
        return await turns.records.end(self.run_id)


@dataclass(frozen=True, slots=True)
class RunEvents(RunHandle):
    """A run with its events so far. Hold this for as long as they are read."""

    lines: Sequence[Entry | StoredEvent]
    reading: RecordLease | None = None
    """What is held of the store's records."""

    @classmethod
    def of(cls, run: LiveRun) -> "RunEvents":
        return cls(run.id, run.conversation_id, run, run.log.entries)

    @property
    def entries(self) -> list[Entry]:
        """The events. Raises ValueError for a record that cannot be read."""
        return [line if isinstance(line, Entry) else decode(line.json) for line in self.lines]


async def get_run(turns: Turns, run_id: str, visitor: str | None) -> RunHandle:
    """Raises ChatError `not_found`; nothing tells a run that is another's from one that does not exist.

    A run is for those who may use its conversation, and goes with it, also while it is still in memory.
    """
    store, run = turns.store, turns.runs.find(run_id)
    if run and not run.stored:
        turns.runs.get(run_id, visitor)
        return RunHandle(run_id, run.conversation_id, run)
    conversation_id = run.conversation_id if run else await store.conversation_of(run_id)
    try:
        await store.conversation(conversation_id, visitor)
    except ChatError as e:
        raise ChatError("not_found", NO_RUN) if e.code == "not_found" else e from None
    return RunHandle(run_id, conversation_id, run)


async def load_run(turns: Turns, run_id: str, requester: Requester) -> RunEvents:
    """A run to be read. Raises ChatError `not_found` as `get_run` does, and `busy` for one long record too many."""
    return await load_run_events(turns, await get_run(turns, run_id, requester.visitor), requester)


async def load_run_events(turns: Turns, known: RunHandle, requester: Requester) -> RunEvents:
    """A known run with its events. Raises ChatError `not_found`, and `busy` for one long record too many."""
    if known.live:
        return RunEvents.of(known.live)
    reading = await turns.records.read(known.run_id, requester.network)
    return RunEvents(known.run_id, known.conversation_id, None, reading.record, reading)
