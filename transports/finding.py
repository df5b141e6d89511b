"""A run by its id, for those who may see it: live, ended and still in memory, or out of the store."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.turns import Turns
from memory.records import End, Line, Reading
from runs.asker import Asker
from runs.errors import NO_RUN, ChatError
from runs.events import Entry
from runs.live import LiveRun
from runs.record import decode


@dataclass(frozen=True, slots=True)
class Known:
    """A run without its events. `live` is None for one that is only in the store."""

    run_id: str
    conversation_id: str
    live: LiveRun | None

    @property
    def ended(self) -> bool:
        return self.live is None or self.live.ended

    async def end(self, turns: Turns) -> End:
        """How many events there are so far, and the phase that it is in or ended with. Raises ChatError `not_found`."""
        if self.live:
            return End(len(self.live.log.entries), self.live.state.phase)
        return await turns.records.end(self.run_id)


@dataclass(frozen=True, slots=True)
class Found(Known):
    """A run with its events so far. Hold this for as long as they are read."""

    lines: Sequence[Entry | Line]
    reading: Reading | None = None
    """What is held of the store's records."""

    @classmethod
    def of(cls, run: LiveRun) -> "Found":
        return cls(run.id, run.conversation_id, run, run.log.entries)

    @property
    def entries(self) -> list[Entry]:
        """The events. Raises ValueError for a record that cannot be read."""
        return [line if isinstance(line, Entry) else decode(line.json) for line in self.lines]


async def know_run(turns: Turns, run_id: str, visitor: str | None) -> Known:
    """Raises ChatError `not_found`; nothing tells a run that is another's from one that does not exist.

    A run is for those who may use its conversation, and goes with it, also while it is still in memory.
    """
    store, run = turns.store, turns.runs.find(run_id)
    if run and not run.kept:
        turns.runs.get(run_id, visitor)
        return Known(run_id, run.conversation_id, run)
    conversation_id = run.conversation_id if run else await store.conversation_of(run_id)
    try:
        await store.conversation(conversation_id, visitor)
    except ChatError as e:
        raise ChatError("not_found", NO_RUN) if e.code == "not_found" else e from None
    return Known(run_id, conversation_id, run)


async def find_run(turns: Turns, run_id: str, asker: Asker) -> Found:
    """A run to be read. Raises ChatError `not_found` as `know_run` does, and `busy` for one long record too many."""
    return await read_run(turns, await know_run(turns, run_id, asker.visitor), asker)


async def read_run(turns: Turns, known: Known, asker: Asker) -> Found:
    """A known run with its events. Raises ChatError `not_found`, and `busy` for one long record too many."""
    if known.live:
        return Found.of(known.live)
    reading = await turns.records.read(known.run_id, asker.network)
    return Found(known.run_id, known.conversation_id, None, reading.record, reading)
