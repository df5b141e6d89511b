"""A cache of the histories that turns read, so that a long conversation is not read again for each turn.

Answered messages never change, so entries need no invalidation. The cache is bounded in characters and in
conversations, each of which may hold an index of some 80 kB; the least recently used go first.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import islice

from memory.message_index import MessageIndex
from memory.messages import MESSAGE, Message
from memory.store import Store
from runs.errors import ChatError
from runs.images import image_tokens
from runs.threads import in_thread
from runs.tokens import estimate_tokens

_MOST_CHARACTERS, _CONVERSATIONS = 8_000_000, 64
_MANY = 500
"""Messages and parts from which on their tokens are estimated, and their sizes added, in a thread."""
_STEP = 4
"""Messages that are read to find where a cached history continues: a turn adds two."""


@dataclass(slots=True)
class History:
    """The messages of one branch in order, with estimated tokens, and what was computed from them."""

    messages: list[Message] = field(default_factory=list)
    index: MessageIndex = field(default_factory=MessageIndex)
    counted_messages: dict[str, dict[str, Message]] = field(default_factory=dict)
    """The messages as each backend has counted them, by backend and id."""
    characters: int = 0
    """The size of the messages."""
    _sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The number of counted messages whose sizes were added up, and the sum, by backend."""

    def size(self) -> int:
        """The size in characters, with counted messages."""
        for backend, counted in self.counted_messages.items():
            count, characters = self._sizes.get(backend, (0, 0))
            if len(counted) > count:  # parts are shared with the messages
                characters += sum(MESSAGE + len(message.text) for message in islice(counted.values(), count, None))
                self._sizes[backend] = len(counted), characters
        return self.characters + sum(characters for _, characters in self._sizes.values())

    def drop_backend(self) -> int:
        """Drops the counted messages of the first backend; returns their size."""
        first = next(iter(self.counted_messages))
        del self.counted_messages[first]
        return self._sizes.pop(first, (0, 0))[1]


class HistoryCache:
    """A cache of `most` characters and so many conversations; the latest conversation is kept however long it is.

    `known` maps a stored message to this process's version of it: a reply may have ended without being stored yet.
    """

    def __init__(
        self,
        store: Store,
        known: Callable[[Message], Message] = lambda message: message,
        most: int = _MOST_CHARACTERS,
        conversations: int = _CONVERSATIONS,
    ) -> None:
        self._store, self._known, self._most, self._conversations = store, known, most, conversations
        self._cache: OrderedDict[str, History] = OrderedDict()

    async def before(self, conversation_id: str, message: Message) -> History:
        """The history before a message. The caller checks the owner, and does not modify the result."""
        return await self.up_to(conversation_id, message.parent_id)

    async def up_to(self, conversation_id: str, last: str | None) -> History:
        """The branch that ends with the message `last`."""
        if last is None:
            return History()
        cached = self._cache.pop(conversation_id, None) or History()
        found = await self._read(conversation_id, last, cached)
        if not found.messages:
            raise ChatError("not_found", "This conversation was deleted meanwhile.")
        if all(message.standing != "growing" for message in found.messages):
            self._cache[conversation_id] = found
            self._evict()
        else:
            found.counted_messages = {}  # the stored text of such a reply may still grow
        return found

    def forget(self, conversation_id: str) -> None:
        """Drops a conversation that was deleted."""
        self._cache.pop(conversation_id, None)

    async def _read(self, conversation_id: str, last: str, cached: History) -> History:
        if cached.messages:
            latest = await self._store.history(conversation_id, _STEP, last)
            at = next((i for i, m in enumerate(latest) if m.id == cached.messages[-1].id), None)
            if at is not None:
                latest = [self._known(message) for message in latest[at + 1 :]]
                return await _extended(cached, latest)
        found = [self._known(message) for message in await self._store.history(conversation_id, end=last)]
        return await _extended(replace(cached, messages=[], characters=0), found)

    def _evict(self) -> None:
        total = sum(history.size() for history in self._cache.values())
        while len(self._cache) > 1 and (total > self._most or len(self._cache) > self._conversations):
            _, oldest = self._cache.popitem(last=False)
            total -= oldest.size()
        latest = next(reversed(self._cache.values()))
        while total > self._most and len(latest.counted_messages) > 1:
            total -= latest.drop_backend()


async def _extended(history: History, messages: list[Message]) -> History:
    """The history with further messages at its end."""

    def extended() -> History:
        fresh = [replace(message, tokens=_estimated_tokens(message), estimated=True) for message in messages]
        characters = history.characters + sum(message.size for message in fresh)
        return replace(history, messages=[*history.messages, *fresh], characters=characters)

    return await in_thread(sum(1 + len(message.parts) for message in messages) > _MANY, extended)


def _estimated_tokens(message: Message) -> int:
    return estimate_tokens(message.text) + image_tokens(message.images)
