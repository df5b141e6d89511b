"""The slots of a local model's process, and whose text each of them has in its cache.

A slot keeps what it has read, so the next turn of the same conversation reads only what is new. Other visitors must
not benefit from that text: a correct guess would be answered faster and counted as cached. So a slot is erased before
it serves another conversation. Source: llama.cpp, tools/server/README.md: `id_slot`, and
`POST /slots/{id}?action=erase`, which needs a `slot_save_path`.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from runs.slots import Slots

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Slot:
    number: int
    owner: str | None = None
    """The conversation whose text it has read; None if that text must not be used again."""
    clean: bool = True
    """Whether it has no text."""
    busy: bool = False
    used: int = 0
    """The number of the latest request."""
    reader: str | None = None
    """The visitor for whom it was read ahead, until a reply uses it."""


class SlotCache:
    """The slots of one process. `erase` removes the text of a slot; what it raises goes to the caller."""

    def __init__(self, count: int, erase: Callable[[int], Awaitable[None]]) -> None:
        self._slots = [_Slot(number) for number in range(count)]
        self._erase = erase
        self._free = Slots(count)
        self._requests = 0

    @property
    def idle(self) -> bool:
        """True if all slots are free."""
        return self._free.idle

    @property
    def empty(self) -> bool:
        """True if no slot has a text."""
        return all(slot.clean for slot in self._slots)

    @asynccontextmanager
    async def lend(self, conversation: str | None) -> AsyncGenerator[int, None]:
        """Holds a slot within the block; waits for one first. Without a conversation, its text is not used again."""
        async with self._free.acquire(lambda position: None):
            slot = self._choose(conversation)
            slot.busy = True
            try:
                if not slot.clean and (conversation is None or slot.owner != conversation):
                    await self._clean(slot)
                self._requests += 1
                slot.owner, slot.clean, slot.used, slot.reader = conversation, False, self._requests, None
                yield slot.number
            finally:
                slot.busy = False

    @asynccontextmanager
    async def lend_ahead(self, conversation: str, visitor: str) -> AsyncGenerator[int | None, None]:
        """Holds a slot within the block, to read a conversation before its next message; None if there is none for it.

        It is the conversation's own slot, the one that was read ahead for this visitor before, or one without text: so
        no other visitor's text is removed. A reply that needs a slot gets such a one first.
        """
        slot = self._choose_ahead(conversation, visitor)
        if slot is None:
            yield None
            return
        async with self._free.acquire(lambda position: None):
            slot.busy = True
            try:
                if slot.owner != conversation:
                    if not slot.clean:
                        await self._clean(slot)
                    slot.reader = visitor
                self._requests += 1
                slot.owner, slot.clean, slot.used = conversation, False, self._requests
                yield slot.number
            finally:
                slot.busy = False

    async def forget(self, conversation: str) -> None:
        """Erases the text of a deleted conversation; where a request is still being stopped, before the next one."""
        found = [slot for slot in self._slots if slot.owner == conversation]
        for slot in found:
            slot.owner = None
        for slot in found:
            if not slot.busy:
                try:
                    await self._clean(slot)
                except Exception as e:  # it is erased before the next request, which reports the problem
                    logger.warning("a slot could not be erased: %s", type(e).__name__)

    async def _clean(self, slot: _Slot) -> None:
        used = slot.used
        await self._erase(slot.number)
        if slot.used == used:  # else it has been lent meanwhile, and erased for that
            slot.clean, slot.owner = True, None

    def _choose(self, conversation: str | None) -> _Slot:
        """The conversation's own slot if it is free, else one without text, else the one that was used longest ago."""
        free = [slot for slot in self._slots if not slot.busy]
        own = (slot for slot in free if conversation is not None and slot.owner == conversation)
        return next(own, None) or min(free, key=lambda slot: (not slot.clean, slot.reader is None, slot.used))

    def _choose_ahead(self, conversation: str, visitor: str) -> _Slot | None:
        if not self._free.available or any(slot.busy and slot.owner == conversation for slot in self._slots):
            return None
        free = [slot for slot in self._slots if not slot.busy]
        for fits in (
            lambda slot: slot.owner == conversation,
            lambda slot: slot.reader == visitor,
            lambda slot: slot.clean,
        ):
            if found := next(filter(fits, free), None):
                return found
        return None
