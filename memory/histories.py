"""The histories that turns read, kept in memory: a long conversation is not read anew for each of its turns.

What has been answered does not change any more, so there is nothing to tell this of a change. Bounded in characters and
in conversations, each of which may hold an index of some 80 kB; the least used go first.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from memory.messages import Message
from memory.recall import Index
from memory.store import Store
from runs.errors import ChatError
from runs.threads import in_thread
from runs.tokens import guess

_MOST, _CONVERSATIONS = 8_000_000, 64
_MESSAGE = 300
"""What a message takes besides its text, in characters."""
_MANY = 500
"""Messages from which on their tokens are guessed in a thread."""
_STEP = 4
"""Messages that are read at once to find where a known history goes on: a turn adds two."""


@dataclass(slots=True)
class History:
    """The messages of one branch, in order, their tokens guessed, and what was made of them."""

    messages: list[Message] = field(default_factory=list)
    index: Index = field(default_factory=Index)
    read: dict[str, dict[str, Message]] = field(default_factory=dict)
    """By backend and id: the messages as that one has read and counted them."""
    characters: int = 0
    """About how much is kept of it."""


class Histories:
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
            found.characters = sum(_MESSAGE + len(message.text) for message in found.messages)
            self._kept[conversation_id] = found
            self._forget()
        else:
            found.read = {}  # the store may get more of such a reply
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
                return History([*kept.messages, *_guessed(latest)], kept.index, kept.read)
        found = [self._known(message) for message in await self._store.history(conversation_id, end=last)]
        return History(await in_thread(len(found) > _MANY, _guessed, found), kept.index, kept.read)

    def _forget(self) -> None:
        total = sum(history.characters for history in self._kept.values())
        while len(self._kept) > 1 and (total > self._most or len(self._kept) > self._conversations):
            _, oldest = self._kept.popitem(last=False)
            total -= oldest.characters


def _guessed(messages: list[Message]) -> list[Message]:
    return [replace(message, tokens=guess(message.text), guessed=True) for message in messages]
