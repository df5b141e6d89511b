"""A conversation as LangChain's own message history, and LangChain's other histories as source and mirror of one.

The view is linear: the current branch. `RunnableWithMessageHistory`, which used such histories, is deprecated; what it
did, turns do.
"""

import asyncio
import logging
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from memory.messages import Message, Role
from memory.store import Store
from runs.text import clean_text
from runs.threads import Threads

logger = logging.getLogger(__name__)

_ROLES: dict[str, Role] = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}
_THREADS = Threads("histories", 4)
_MIRROR = Threads("mirror", 1)
"""One thread, since a history may read and write all of a conversation to add to it: turns go one after another."""


class ConversationHistory(BaseChatMessageHistory):
    """One conversation of a store. The caller has checked whose it is.

    The store belongs to the loop that opened it: from other threads the sync methods work, on that loop the async ones
    do.
    """

    def __init__(self, store: Store, conversation_id: str, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """`loop` is the store's own; None for the one that runs now."""
        self._store, self._id = store, conversation_id
        self._loop = loop or asyncio.get_running_loop()

    async def aget_messages(self) -> list[BaseMessage]:
        return [to_langchain(message) for message in await self._store.history(self._id) if message.text]

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """After the current branch's end. Raises ValueError for a message whose role is not known here."""
        await self._store.append(self._id, [from_langchain(message) for message in messages])

    async def aclear(self) -> None:
        """The current branch begins anew; what was said stays, as another one."""
        first = await self._store.history(self._id)
        if first:
            await self._store.rewind(self._id, first[0].id)

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        found: list[BaseMessage] = self._here(self.aget_messages())
        return found

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        self._here(self.aadd_messages(messages))

    def clear(self) -> None:
        self._here(self.aclear())

    def _here(self, work: Any) -> Any:
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            work.close()
            raise RuntimeError("This is the store's own loop: await aget_messages, aadd_messages or aclear.")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def import_history(store: Store, history: BaseChatMessageHistory, owner: str | None = None) -> str:
    """A new conversation with the messages of another history (SQL, Redis, a file …); returns its id.

    It is used by its sync methods, in a thread: not all that are named async are there.
    """
    found = await _THREADS.run(lambda: history.messages)
    return await store.create(owner, [from_langchain(message) for message in found])


def to_langchain(message: Message) -> BaseMessage:
    """A stored message as LangChain has it, with its id; an unfinished reply tells so in `additional_kwargs`."""
    told: dict[str, Any] = {} if message.standing == "whole" else {"standing": message.standing}
    match message.role:
        case "user":
            return HumanMessage(message.text, id=message.id)
        case "assistant":
            return AIMessage(message.text, id=message.id, additional_kwargs=told)
        case "system":
            return SystemMessage(message.text, id=message.id)
        case "tool":
            return ToolMessage(message.text, id=message.id, tool_call_id=message.id)


def from_langchain(message: BaseMessage) -> tuple[Role, str]:
    """Role and text of LangChain's message. Raises ValueError for a role that is not known here."""
    kind = message.type.removesuffix("MessageChunk").lower()
    if kind not in _ROLES:
        raise ValueError(f"a message of the type {message.type!r} cannot be taken; allowed: {', '.join(_ROLES)}")
    return _ROLES[kind], clean_text(message.text)


class Mirror:
    """Writes each finished turn into another history as well, for whatever else reads that one.

    What goes wrong there is logged and costs the conversation nothing.
    """

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        """`path` is `package.module:ClassName`; in `options` {conversation_id} is replaced. Raises ValueError."""
        module, _, name = path.partition(":")
        try:
            made = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as e:
            raise ValueError(f"{path!r} cannot be imported: {e}") from None
        if not (isinstance(made, type) and issubclass(made, BaseChatMessageHistory)):
            raise ValueError(f"{path!r} is no BaseChatMessageHistory")
        self._class, self._options = made, options

    async def write(self, conversation_id: str, turn: Sequence[Message]) -> None:
        """The messages of a turn."""
        try:
            options = {
                name: value.replace("{conversation_id}", conversation_id) if isinstance(value, str) else value
                for name, value in self._options.items()
            }
            said = [to_langchain(message) for message in turn if message.text]
            await _MIRROR.run(lambda: self._class(**options).add_messages(said))
        except Exception as e:  # whatever the other library raises
            logger.warning("the mirror of a conversation: %s", type(e).__name__)
