"""The histories that turns read, kept in memory: a long conversation is not read anew for each of its turns.

What has been answered does not change any more, so there is nothing to tell this of a change. Bounded in characters and
in conversations, each of which may hold an index of some 80 kB; the least used go first.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import islice

from memory.message_index import MessageIndex
from memory.messages import MESSAGE, Message
from memory.store import Store
from runs.errors import ChatError
from runs.threads import in_thread
from runs.tokens import estimate_tokens

_MOST, _CONVERSATIONS = 8_000_000, 64
_MANY = 500
"""Messages and parts from which on their tokens are guessed, and their sizes added, in a thread."""
_STEP = 4
"""Messages that are read at once to find where a known history goes on: a turn adds two."""


@dataclass(slots=True)
class History:
    """The messages of one branch, in order, their tokens guessed, and what was made of them."""

    messages: list[Message] = field(default_factory=list)
    index: MessageIndex = field(default_factory=MessageIndex)
    counted_messages: dict[str, dict[str, Message]] = field(default_factory=dict)
    """By backend and id: the messages as that one has read and counted them."""
    characters: int = 0
    """About how much its messages take."""
    _sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By backend: how many of its readings have been added up, and what they take."""

    def size(self) -> int:
        """About how many characters it takes, what backends have read included."""
        for backend, counted_messages in self.counted_messages.items():
            count, characters = self._sizes.get(backend, (0, 0))
            if len(counted_messages) > count:  # parts are shared with the messages
                characters += sum(MESSAGE + len(one.text) for one in islice(counted_messages.values(), count, None))
                self._sizes[backend] = len(counted_messages), characters
        return self.characters + sum(characters for _, characters in self._sizes.values())

    def forget_reading(self) -> int:
        """Lets go of what the first of several backends has read; returns about how much that took."""
        first = next(iter(self.counted_messages))
        del self.counted_messages[first]
        return self._sizes.pop(first, (0, 0))[1]


class HistoryCache:
    """`most` characters of at most so many conversations are kept, and the latest conversation however long it is.

    `known` gives a stored message as this process knows it: a reply may have ended without being stored yet.
    """

    def __init__(
        self,
        store: Store,
        known: Callable[[Message], Message] = lambda message: message,
        most: int = _MOST,
        conversations: int = _CONVERSATIONS,
    ) -> None:
        self._store, self._known, self._most, self._conversations = store, known, most, conversations
        self._kept: OrderedDict[str, History] = OrderedDict()

    async def before(self, conversation_id: str, message: Message) -> History:
        """What comes before a message. The caller has checked whose conversation it is, and changes nothing of it."""
        return await self.up_to(conversation_id, message.parent_id)

    async def up_to(self, conversation_id: str, last: str | None) -> History:
        """The branch that ends with the message `last`."""
        if last is None:
            return History()
        kept = self._kept.pop(conversation_id, None) or History()
        found = await self._found(conversation_id, last, kept)
        if not found.messages:
            raise ChatError("not_found", "This conversation was deleted meanwhile.")
        if all(message.standing != "growing" for message in found.messages):
            self._kept[conversation_id] = found
            self._forget()
        else:
            found.counted_messages = {}  # the store may get more of such a reply
        return found

    def forget(self, conversation_id: str) -> None:
        """Lets go of a conversation that was deleted."""
        self._kept.pop(conversation_id, None)

    async def _found(self, conversation_id: str, last: str, kept: History) -> History:
        if kept.messages:
            latest = await self._store.history(conversation_id, _STEP, last)
            at = next((i for i, m in enumerate(latest) if m.id == kept.messages[-1].id), None)
            if at is not None:
                latest = [self._known(message) for message in latest[at + 1 :]]
                return await _grown(kept, latest)
        found = [self._known(message) for message in await self._store.history(conversation_id, end=last)]
        return await _grown(replace(kept, messages=[], characters=0), found)

    def _forget(self) -> None:
        total = sum(history.size() for history in self._kept.values())
        while len(self._kept) > 1 and (total > self._most or len(self._kept) > self._conversations):
            _, oldest = self._kept.popitem(last=False)
            total -= oldest.size()
        latest = next(reversed(self._kept.values()))
        while total > self._most and len(latest.counted_messages) > 1:
            total -= latest.forget_reading()


async def _grown(history: History, messages: list[Message]) -> History:
    """The history with further messages behind it."""

    def grown() -> History:
        fresh = [replace(message, tokens=estimate_tokens(message.text), estimated=True) for message in messages]
        characters = history.characters + sum(message.size for message in fresh)
        return replace(history, messages=[*history.messages, *fresh], characters=characters)

    return await in_thread(sum(1 + len(message.parts) for message in messages) > _MANY, grown)
