"""What of a conversation is drawn: stored messages, completed by what this process knows of their runs."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from agent.autosave import current_version, final_reply
from components.page_state import INITIAL_MESSAGES, PageState, View, drawn_of
from memory.messages import Message
from memory.store import Store
from runs.errors import ChatError
from runs.live import LiveRun
from runs.record import fold_record
from runs.registry import RunRegistry
from runs.state import AgentState

_CHARACTERS = 500_000
"""Characters of messages that are drawn together, parts included; the others are shown as earlier ones are."""
_UNSAVED = "unsaved "
"""Begins the id of a drawn reply that is not in the store."""


async def draw(
    store: Store, runs: RunRegistry, visitor: str | None, conversation_id: str, latest: int, least: int = 1
) -> View:
    """The page's view of a conversation: its latest messages, without a reply that is still growing.

    There are fewer than `latest` where they are long, but at least the `least` latest ones.
    """
    found = _fitting(await store.history(conversation_id, latest), least)
    earlier = await store.size(conversation_id) - len(found)
    messages = [shown for message in found if (shown := _as_known(runs, message))]
    page = PageState(visitor, conversation_id, None, drawn_of(messages), earlier)
    return View(page, messages, await _versions(store, conversation_id, messages))


async def refresh_view(store: Store, runs: RunRegistry, page: PageState) -> View:
    """What a page in a conversation shows already, as it is now.

    Raises ChatError where the conversation is not the visitor's, or lacks what the page shows.
    """
    if page.conversation_id is None or not page.drawn:
        return View(page)
    await store.conversation(page.conversation_id, page.visitor)
    stored = [one.id for one in page.drawn if not one.id.startswith(_UNSAVED)]
    found = await store.history(page.conversation_id, len(stored), stored[-1]) if stored else []
    unsaved = [run for one in page.drawn[len(stored) :] if (run := runs.find(one.run_id))]
    if len(found) + len(unsaved) < len(page.drawn):
        raise ChatError("not_found", "The conversation could not be drawn again. Reload the page.")
    messages = [shown for message in found if (shown := _as_known(runs, message))]
    versions = await _versions(store, page.conversation_id, messages)
    return View(page, [*messages, *map(ended_reply, unsaved)], versions)


async def _versions(store: Store, conversation_id: str, messages: Sequence[Message]) -> dict[str, list[str]]:
    after = await store.siblings(conversation_id, list({message.parent_id for message in messages}))
    return {m.id: ids for m in messages if len(ids := after[m.parent_id]) > 1}


def _fitting(messages: list[Message], least: int) -> list[Message]:
    """The latest of the messages, as many as there is room for."""
    sizes = accumulate(m.size for m in reversed(messages))
    count = max(least, sum(size <= _CHARACTERS for size in sizes))
    return messages[max(0, len(messages) - count) :]


def _as_known(runs: RunRegistry, message: Message) -> Message | None:
    """A stored message as this process knows it; None while its run is live, and drawn by its tail."""
    known = current_version(runs, message)
    if known.standing != "growing":
        return known
    return None if runs.find(message.run_id) else replace(message, standing="interrupted")


def ended_reply(run: LiveRun) -> Message:
    """An ended run's reply where the store cannot be read."""
    reply = Message(f"{_UNSAVED}{run.id}", "assistant", "", run_id=run.id)
    return final_reply(reply, run, run.state, run.log.entries[-1].event)


async def draw_until(store: Store, runs: RunRegistry, conversation_id: str, last: Message) -> list[Message]:
    """What was said up to a message, that one included, on its own branch."""
    found = _fitting(await store.history(conversation_id, INITIAL_MESSAGES, last.id), 1)
    return [shown for message in found if (shown := _as_known(runs, message))]


async def last_state(store: Store, page: PageState) -> AgentState:
    """The state at the end of the latest recorded run, so that a reload shows it again."""
    return await state_of(store, next((m.run_id for m in reversed(page.drawn) if m.run_id), None))


async def state_of(store: Store, run_id: str | None) -> AgentState:
    """The state at the end of a recorded run; an empty one where there is no record that can be read."""
    try:
        return fold_record(await store.record(run_id)) if run_id else AgentState()
    except (ChatError, ValueError):
        return AgentState()
