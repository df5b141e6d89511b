"""A conversation as a LangChain message history; and other LangChain histories as source or mirror of conversations.

A history is linear: it is the current branch. Turns replace the deprecated `RunnableWithMessageHistory`.
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
"""One thread, so that turns are written in order: a history may rewrite a whole conversation to add to it."""


class ConversationHistory(BaseChatMessageHistory):
    """One conversation of a store. The caller checks the owner.

    The asynchronous methods work on the loop that opened the store, the synchronous ones in other threads.
    """

    def __init__(self, store: Store, conversation_id: str, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """`loop` is the store's own; None for the running one."""
        self._store, self._id = store, conversation_id
        self._loop = loop or asyncio.get_running_loop()

    async def aget_messages(self) -> list[BaseMessage]:
        """The messages of the current branch."""
        return [to_langchain(message) for message in await self._store.history(self._id) if message.text]

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Adds messages at the end of the current branch. Raises ValueError for an unknown role."""
        await self._store.append(self._id, [from_langchain(message) for message in messages])

    async def aclear(self) -> None:
        """Begins a new branch; the current one stays."""
        first = await self._store.history(self._id)
        if first:
            await self._store.rewind(self._id, first[0].id)

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        """The messages of the current branch."""
        found: list[BaseMessage] = self._run(self.aget_messages())
        return found

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Adds messages at the end of the current branch. Raises ValueError for an unknown role."""
        self._run(self.aadd_messages(messages))

    def clear(self) -> None:
        """Begins a new branch; the current one stays."""
        self._run(self.aclear())

    def _run(self, work: Any) -> Any:
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            work.close()
            raise RuntimeError("This is the store's own loop: await aget_messages, aadd_messages or aclear.")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def import_history(store: Store, history: BaseChatMessageHistory, owner: str | None = None) -> str:
    """Creates a conversation from another history (SQL, Redis, a file …) and returns its id.

    The history is read in a thread by its synchronous methods: few histories have all asynchronous ones.
    """
    found = await _THREADS.run(lambda: history.messages)
    return await store.create(owner, [from_langchain(message) for message in found])


def to_langchain(message: Message) -> BaseMessage:
    """A stored message as a LangChain message; an incomplete reply has its standing in `additional_kwargs`."""
    more: dict[str, Any] = {} if message.standing == "whole" else {"standing": message.standing}
    match message.role:
        case "user":
            return HumanMessage(message.text, id=message.id)
        case "assistant":
            return AIMessage(message.text, id=message.id, additional_kwargs=more)
        case "system":
            return SystemMessage(message.text, id=message.id)
        case "tool":
            return ToolMessage(message.text, id=message.id, tool_call_id=message.id)


def from_langchain(message: BaseMessage) -> tuple[Role, str]:
    """The role and text of a LangChain message. Raises ValueError for an unknown role."""
    kind = message.type.removesuffix("MessageChunk").lower()
    if kind not in _ROLES:
        raise ValueError(f"a message of the type {message.type!r} cannot be stored; allowed: {', '.join(_ROLES)}")
    return _ROLES[kind], clean_text(message.text)


class Mirror:
    """Writes each finished turn into another history as well. Its failures are logged and harm no conversation."""

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        """`path` is `package.module:ClassName`; in `options` {conversation_id} is replaced. Raises ValueError."""
        module, _, name = path.partition(":")
        try:
            found = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as e:
            raise ValueError(f"{path!r} cannot be imported: {e}") from None
        if not (isinstance(found, type) and issubclass(found, BaseChatMessageHistory)):
            raise ValueError(f"{path!r} is no BaseChatMessageHistory")
        self._class, self._options = found, options

    async def write(self, conversation_id: str, turn: Sequence[Message]) -> None:
        """Writes the messages of a turn."""
        try:
            options = {
                name: value.replace("{conversation_id}", conversation_id) if isinstance(value, str) else value
                for name, value in self._options.items()
            }
            messages = [to_langchain(message) for message in turn if message.text]
            await _MIRROR.run(lambda: self._class(**options).add_messages(messages))
        except Exception as e:  # any exception of the other library
            logger.warning("the mirror of a conversation: %s", type(e).__name__)
