"""Reads the messages that a page shows: stored ones, updated with what this process knows of their runs."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from agent.autosave import current_version, final_reply
from components.page_state import INITIAL_MESSAGES, ConversationView, PageState, shown_messages
from memory.messages import Message
from memory.store import Store
from runs.errors import ChatError
from runs.live import LiveRun
from runs.record import fold_record
from runs.registry import RunRegistry
from runs.state import AgentState

_CHARACTERS = 500_000
"""Characters of messages that a page shows at once, parts included. Older messages can be shown on demand."""
_UNSAVED = "unsaved "
"""The prefix of the id of a shown reply that is not in the store."""


async def load_view(
    store: Store, runs: RunRegistry, visitor: str | None, conversation_id: str, latest: int, least: int = 1
) -> ConversationView:
    """Reads the latest messages of a conversation, without a reply that is still growing.

    Long messages reduce their number below `latest`, but never below `least`.
    """
    found = _fitting(await store.history(conversation_id, latest), least)
    earlier = await store.size(conversation_id) - len(found)
    messages = [shown for message in found if (shown := _as_known(runs, message))]
    page = PageState(visitor, conversation_id, None, shown_messages(messages), earlier)
    return ConversationView(page, messages, await _versions(store, conversation_id, messages))


async def refresh_view(store: Store, runs: RunRegistry, page: PageState) -> ConversationView:
    """Reads the messages again that a page already shows.

    Raises ChatError if the conversation does not belong to the visitor, or no longer has these messages.
    """
    if page.conversation_id is None or not page.shown:
        return ConversationView(page)
    await store.conversation(page.conversation_id, page.visitor)
    stored = [one.id for one in page.shown if not one.id.startswith(_UNSAVED)]
    found = await store.history(page.conversation_id, len(stored), stored[-1]) if stored else []
    unsaved = [run for one in page.shown[len(stored) :] if (run := runs.find(one.run_id))]
    if len(found) + len(unsaved) < len(page.shown):
        raise ChatError("not_found", "The conversation could not be drawn again. Reload the page.")
    messages = [shown for message in found if (shown := _as_known(runs, message))]
    versions = await _versions(store, page.conversation_id, messages)
    return ConversationView(page, [*messages, *map(ended_reply, unsaved)], versions)


async def _versions(store: Store, conversation_id: str, messages: Sequence[Message]) -> dict[str, list[str]]:
    siblings = await store.siblings(conversation_id, list({message.parent_id for message in messages}))
    return {m.id: ids for m in messages if len(ids := siblings[m.parent_id]) > 1}


def _fitting(messages: list[Message], least: int) -> list[Message]:
    """Returns the latest messages whose characters fit in `_CHARACTERS`."""
    sizes = accumulate(m.size for m in reversed(messages))
    count = max(least, sum(size <= _CHARACTERS for size in sizes))
    return messages[max(0, len(messages) - count) :]


def _as_known(runs: RunRegistry, message: Message) -> Message | None:
    """Returns a stored message as this process knows it; None while its run is live and drawn by a follower."""
    known = current_version(runs, message)
    if known.standing != "growing":
        return known
    return None if runs.find(message.run_id) else replace(message, standing="interrupted")


def ended_reply(run: LiveRun) -> Message:
    """Builds the reply of an ended run without the store."""
    reply = Message(f"{_UNSAVED}{run.id}", "assistant", "", run_id=run.id)
    return final_reply(reply, run, run.state, run.log.entries[-1].event)


async def messages_until(store: Store, runs: RunRegistry, conversation_id: str, last: Message) -> list[Message]:
    """Reads the messages of a message's branch, up to and including it."""
    found = _fitting(await store.history(conversation_id, INITIAL_MESSAGES, last.id), 1)
    return [shown for message in found if (shown := _as_known(runs, message))]


async def last_state(store: Store, page: PageState) -> AgentState:
    """Reads the final state of the latest recorded run that a page shows."""
    return await recorded_state(store, next((m.run_id for m in reversed(page.shown) if m.run_id), None))


async def recorded_state(store: Store, run_id: str | None) -> AgentState:
    """Reads the final state of a recorded run; an empty state if there is no readable record."""
    try:
        return fold_record(await store.record(run_id)) if run_id else AgentState()
    except (ChatError, ValueError):
        return AgentState()
