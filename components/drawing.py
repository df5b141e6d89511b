"""What of a conversation is drawn: stored messages, completed by what this process knows of their runs."""

from dataclasses import replace

from agent.saving import as_ended, as_known
from components.session import DRAWN, PageState
from memory.messages import Message
from memory.store import Store
from runs.errors import ChatError
from runs.live import LiveRun
from runs.record import fold
from runs.registry import Runs
from runs.state import AgentState


async def draw(store: Store, runs: Runs, visitor: str | None, conversation_id: str, latest: int) -> PageState:
    """The page's view of a conversation: its latest messages, without a reply that is still growing."""
    found = await store.history(conversation_id, latest)
    earlier = await store.size(conversation_id) - len(found)
    drawn = [shown for message in found if (shown := _as_known(runs, message))]
    after = await store.siblings(conversation_id, list({message.parent_id for message in drawn}))
    versions = {m.id: ids for m in drawn if len(ids := after[m.parent_id]) > 1}
    return PageState(visitor, conversation_id, None, drawn, earlier, versions)


def _as_known(runs: Runs, message: Message) -> Message | None:
    """A stored message as this process knows it; None while its run is live, and drawn by its tail."""
    known = as_known(runs, message)
    if known.standing != "growing":
        return known
    return None if runs.find(message.run_id) else replace(message, standing="interrupted")


def ended_reply(run: LiveRun) -> Message:
    """An ended run's reply where the store cannot be read."""
    reply = Message(f"unsaved {run.id}", "assistant", "", run_id=run.id)
    return as_ended(reply, run, run.state, run.log.entries[-1].event)


async def draw_until(store: Store, runs: Runs, conversation_id: str, last: Message) -> list[Message]:
    """What was said up to a message, that one included, on its own branch."""
    found = await store.history(conversation_id, DRAWN, last.id)
    return [shown for message in found if (shown := _as_known(runs, message))]


async def last_state(store: Store, page: PageState) -> AgentState:
    """The state at the end of the latest recorded run, so that a reload shows it again."""
    return await state_of(store, next((m.run_id for m in reversed(page.drawn) if m.run_id), None))


async def state_of(store: Store, run_id: str | None) -> AgentState:
    """The state at the end of a recorded run; an empty one where there is no record that can be read."""
    try:
        return fold(await store.record(run_id)) if run_id else AgentState()
    except (ChatError, ValueError):
        return AgentState()
