"""A reply that begins with a part of an earlier one and then takes another token: a branch of the conversation."""

from collections.abc import Iterable
from dataclasses import dataclass

from memory.messages import Message
from memory.record_cache import RecordCache
from memory.store import Store
from runs import events
from runs.errors import NO_RUN, ChatError
from runs.events import Entry
from runs.record import decode
from runs.registry import RunRegistry
from runs.threads import in_thread

_MANY = 1000
"""Events of a record that are read in a thread."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """The run whose reply is continued, the event before which that begins, and the token that comes in its place."""

    run_id: str
    seq: int
    token: str


class Continuations:
    """Finds the beginnings of replies."""

    def __init__(self, store: Store, runs: RunRegistry, records: RecordCache) -> None:
        self._store, self._runs, self._records = store, runs, records

    async def conversation_of(self, run_id: str, visitor: str | None) -> str:
        """Returns the run's conversation. Raises ChatError `not_found` also for another visitor's run."""
        run = self._runs.find(run_id)
        conversation_id = run.conversation_id if run else await self._store.conversation_of(run_id)
        try:
            await self._store.conversation(conversation_id, visitor)
        except ChatError as e:
            raise ChatError("not_found", NO_RUN) if e.code == "not_found" else e from None
        return conversation_id

    async def begin(self, wanted: Continuation, address: str | None) -> tuple[Message, str]:
        """Returns the message that the run answered, and the text with which the new reply begins.

        Raises ChatError `busy` for a live run, and `invalid_request` where the text cannot be continued.
        """
        run = self._runs.find(wanted.run_id)
        if run and not run.ended:
            raise ChatError("busy", "This reply is still being written. Stop it first.")
        message = await self._store.answered_message(wanted.run_id)
        if message is None:
            raise ChatError("not_found", NO_RUN)
        if run:
            return message, _text_before(run.log.entries, wanted) + wanted.token
        reading = await self._records.read(wanted.run_id, address)
        entries = (decode(line.json) for line in reading.record)
        try:
            return message, await in_thread(len(reading.record) > _MANY, _text_before, entries, wanted) + wanted.token
        except ValueError:
            raise ChatError(
                "not_found", "This run's record cannot be read, so its reply cannot be continued."
            ) from None


def _text_before(entries: Iterable[Entry], wanted: Continuation) -> str:
    """Returns the reply's text before an event. Raises ChatError `invalid_request`."""
    texts, before_call = list[str](), 0
    for entry in entries:
        if entry.seq == wanted.seq:
            return "".join(texts)
        match entry.event:
            case events.Token(content=content):
                texts.append(content)
            case events.ModelStart():
                before_call = len(texts)
            case events.Reasoning(retracts=True):
                del texts[before_call:]
            case events.ToolStart():
                raise ChatError("invalid_request", "A reply cannot be continued after a tool call in it.")
    raise ChatError("invalid_request", f"continue_from.seq: the run has no event {wanted.seq}.")
