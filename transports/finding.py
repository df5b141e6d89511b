"""A run by its id, for those who may see it: live, ended and still in memory, or out of the store."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.turns import Turns
from memory.records import Line
from runs.errors import NO_RUN, ChatError
from runs.events import Entry
from runs.live import LiveRun
from runs.record import decode


@dataclass(frozen=True, slots=True)
class Found:
    """`live` is None for a run that is only in the store, `lines` its events so far. Hold this for as long as these are
    read: then other readers share them.
    """

    run_id: str
    conversation_id: str
    live: LiveRun | None
    lines: Sequence[Entry | Line]

    @classmethod
    def of(cls, run: LiveRun) -> "Found":
        return cls(run.id, run.conversation_id, run, run.log.entries)

    @property
    def ended(self) -> bool:
        return self.live is None or self.live.ended

    @property
    def entries(self) -> list[Entry]:
        """The events. Raises ValueError for a record that cannot be read."""
        return [line if isinstance(line, Entry) else decode(line.json) for line in self.lines]

    @property
    def status(self) -> str:
        """The phase that it is in, or ended with."""
        return self.live.state.phase if self.live else self.lines[-1].type


async def find_run(turns: Turns, run_id: str, visitor: str | None) -> Found:
    """Raises ChatError `not_found`; nothing tells a run that is another's from one that does not exist.

    A run is for those who may use its conversation, and goes with it, also while it is still in memory.
    """
    store, run = turns.store, turns.runs.find(run_id)
    if run and not run.kept:
        return Found.of(turns.runs.get(run_id, visitor))
    conversation_id = run.conversation_id if run else await store.conversation_of(run_id)
    try:
        await store.conversation(conversation_id, visitor)
    except ChatError as e:
        raise ChatError("not_found", NO_RUN) if e.code == "not_found" else e from None
    if run:
        return Found.of(run)
    return Found(run_id, conversation_id, None, await turns.records.read(run_id))
