"""Writes finished turns into another message history (`[memory] mirror`), in the background."""

import asyncio
import logging
from collections.abc import Sequence

from memory.langchain_history import Mirror
from memory.messages import Message
from runs.live import LiveRun
from settings import MemorySettings

logger = logging.getLogger(__name__)

_MOST_WAITING = 100
"""Turns that wait to be written; further ones are left out of the mirror."""
_CLOSING_S = 2.0


class MirrorQueue:
    """Turns that wait to be written into the mirror. Without a configured mirror it does nothing."""

    def __init__(self, settings: MemorySettings) -> None:
        """Raises ValueError for a mirror that cannot be used."""
        self._mirror = Mirror(settings.mirror, settings.mirror_options) if settings.mirror else None
        self._writing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._writing)

    def add(self, run: LiveRun, messages: Sequence[Message]) -> None:
        """Writes the messages of a run's turn in the background."""
        if self._mirror is None or run.conversation_deleted:
            return
        if len(self._writing) >= _MOST_WAITING:
            logger.warning("the mirror of a conversation: it is too slow, so a turn is left out")
            return
        writing = asyncio.create_task(self._mirror.write(run.conversation_id, messages), name=f"mirror {run.id}")
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)

    async def close(self) -> None:
        """Waits up to two seconds for turns that are being written."""
        if self._writing:
            await asyncio.wait(self._writing, timeout=_CLOSING_S)
