"""Conversations apart from their turns: stored options, the number per visitor, and deletion."""

import logging
import time

from agent.summaries import Summarizer
from agent.tools import Toolbox
from backends import Backends
from documents.images import ImageLibrary
from memory.history_cache import HistoryCache
from memory.mode_options import known_options
from memory.modes import MODES
from memory.options import TurnOptions
from memory.store import Store
from memory.stored_conversations import Conversation
from runs.errors import ChatError
from runs.registry import RunRegistry
from settings import Settings

logger = logging.getLogger(__name__)


class Conversations:
    """The conversations of the app. Callers check the owner of a conversation before they change it."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        runs: RunRegistry,
        backends: Backends,
        toolbox: Toolbox,
        histories: HistoryCache,
        summarizer: Summarizer,
        images: ImageLibrary,
    ) -> None:
        self._settings, self._store, self._runs = settings, store, runs
        self._backends, self._toolbox = backends, toolbox
        self._histories, self._summarizer, self._images = histories, summarizer, images

    def options(
        self, conversation: Conversation, backend: str | None, visitor: str | None, memory: str | None = None
    ) -> TurnOptions:
        """Returns a conversation's options for a backend and a memory mode, by default the conversation's.

        Tools, models and options of modes that are no longer offered are left out.
        """
        options, mode = conversation.options, MODES.get(conversation.memory or "")
        if options.mode_options:
            known = known_options(mode.options, options.mode_options) if mode and memory in (None, mode.name) else {}
            options = options.model_copy(update={"mode_options": known or None})
        if options.tools is not None:
            options = options.model_copy(update={"tools": tuple(self._toolbox.known(options.tools))})
        if options.model is not None and not self._offers_model(conversation, backend, visitor):
            options = options.model_copy(update={"model": None})
        return options

    def _offers_model(self, conversation: Conversation, backend: str | None, visitor: str | None) -> bool:
        if backend is None or backend != conversation.backend:
            return False
        try:
            self._backends.bind(backend, visitor).with_model(conversation.options.model)
        except ChatError:
            return False
        return True

    async def left(self, visitor: str | None) -> int | None:
        """Returns how many more conversations a visitor may have; None where there is no limit."""
        most = self._settings.limits.conversations_per_visitor
        return max(0, most - await self._store.count(visitor)) if most and visitor else None

    async def check_limit(self, visitor: str | None) -> None:
        """Raises ChatError `rate_limited` if the visitor has as many conversations as allowed."""
        if await self.left(visitor) == 0:
            most = self._settings.limits.conversations_per_visitor or 0
            kept = "1 conversation" if most == 1 else f"{most:,} conversations"
            message = f"You have {kept}, the most that are kept here: delete some in the list first."
            raise ChatError("rate_limited", message)

    async def delete(self, conversation_id: str) -> None:
        """Stops a conversation's live run and deletes the conversation."""
        if run := self._runs.live_run(conversation_id):
            run.conversation_deleted = True
            await run.stop("user")
        self._summarizer.yield_to_turn(conversation_id)
        with self._runs.hold(conversation_id):
            await self._store.delete(conversation_id)
        await self._forget(conversation_id)
        await self._images.delete([conversation_id])

    async def _forget(self, conversation_id: str) -> None:
        """Forgets what is cached of a deleted conversation."""
        self._histories.forget(conversation_id)
        for backend in self._backends:
            await backend.forget_conversation(conversation_id)

    async def delete_idle(self) -> None:
        """Deletes the conversations and documents whose retention period is over."""
        days = self._settings.memory.retention_days
        if not days:
            return
        before = time.time() - days * 86400
        spared = [run.conversation_id for run in self._runs.live()]
        if gone := await self._store.delete_idle(before, spared):
            logger.warning("%d conversations were deleted: they were not used for %g days", len(gone), days)
        for conversation_id in gone:
            await self._forget(conversation_id)
        await self._images.delete(gone)
        if library := self._toolbox.library:
            await library.forget_idle(before)
