"""Reading a conversation before its next message, while its visitor types, where the backend's model can do that."""

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.attempt import model_options
from agent.model_input import build_model_input
from agent.model_middleware import call_messages
from agent.turn import TurnRequest
from memory.messages import Message
from memory.stored_conversations import Conversation
from runs.errors import ChatError

if TYPE_CHECKING:
    from agent.turns import Turns

logger = logging.getLogger(__name__)

_WAIT_S = 0.5
"""Seconds after which an opened conversation is read: of several opened in a row, only the last one."""
_NEXT = "?"
"""The place of the next message."""


class ReadAhead:
    """Reads one conversation at a time: a visitor's next one replaces it, those of others are not read meanwhile."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._visitor: str | None = None

    def begin(self, turns: "Turns", conversation: Conversation, visitor: str | None) -> None:
        """Begins to read a conversation that its visitor has opened."""
        if self._task and not self._task.done():
            if visitor != self._visitor:
                return
            self._task.cancel()
        if visitor and conversation.head:
            self._visitor = visitor
            self._task = asyncio.create_task(_read(turns, conversation, visitor), name="read ahead")

    def stop(self) -> None:
        """Ends reading, without waiting for its end: a reply begins."""
        if self._task:
            self._task.cancel()

    async def close(self) -> None:
        """Ends reading, and waits for its end."""
        self.stop()
        if self._task:
            await asyncio.wait({self._task})


async def _read(turns: "Turns", found: Conversation, visitor: str) -> None:
    await asyncio.sleep(_WAIT_S)
    if any(turns.runs.live()):
        return
    try:
        request = TurnRequest(_NEXT, visitor, None, found.backend, found.memory, found.options)
        turn = turns.prepare(request)
        backend = turn.backend
        if not backend.reads_ahead or not backend.health().ready or not backend.machine_idle() or turn.mode.searches:
            return
        offered = turn.tool_set.with_backend_tools(backend).offered
        if offered and backend.offers_tools:
            return
        message = Message("next", "user", _NEXT, parent_id=found.head)
        turn = turns.with_history(turn, found.id, message, found.owner)
        options = model_options(backend, turn.options, turns.settings.limits)
        given = await build_model_input(turns.settings, backend, turn, options, offered)
        messages = await call_messages(backend, given, None, given.messages)
        if not any(turns.runs.live()):
            await backend.read_ahead(messages, replace(options, conversation=found.id), visitor)
    except ChatError as e:  # the next message reports it
        logger.debug("conversation %s was not read ahead: %s", found.id, e.code)
