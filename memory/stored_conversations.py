"""Conversations in the database: created, imported, read, and deleted with all that belongs to them."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count

from sqlalchemy import case, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from memory.database import Database
from memory.folded_text import fold_text
from memory.message_tree import insert_messages, linear_messages
from memory.messages import Message, Role
from memory.options import TurnOptions
from memory.rows import options_of, storable, title_of
from memory.tables import conversations, messages
from runs.errors import ChatError
from runs.events import JSON
from runs.live import new_id

NOT_FOUND = "There is no such conversation, or it is not yours: start a new one."
_IMPORTING = "an import that is not whole"
"""The owner of a conversation during its import: no visitor has this id, so nobody finds it."""
_IMPORT_S = 3600.0
"""Seconds after which an import of another process is considered dead."""
_IDS = 500
"""Ids in one query."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation without its messages."""

    id: str
    owner: str | None
    title: str
    backend: str | None
    """The backend that was used last, None before the first; `memory` likewise."""
    memory: str | None
    options: TurnOptions
    head: str | None
    """The last message of the current branch."""
    updated: float
    """Epoch seconds."""


class StoredConversations(Database):
    """The methods of the store for whole conversations."""

    async def prepare(self, db: AsyncConnection) -> None:
        """Cleans up after a dead process: marks growing replies as interrupted, deletes unfinished imports."""
        growing = messages.c.standing == "growing"
        await db.execute(update(messages).where(growing).values(standing="interrupted"))
        unfinished = conversations.c.owner == _IMPORTING
        if not self.alone:
            unfinished &= conversations.c.created < time.time() - _IMPORT_S
        await db.execute(delete(conversations).where(unfinished))

    async def create(
        self, owner: str | None, texts: Sequence[tuple[Role, str]] = (), conversation_id: str | None = None
    ) -> str:
        """Creates a conversation with these messages, and returns its id: a new one unless it is given."""
        created, conversation_id = linear_messages(texts), conversation_id or new_id()
        async with self.writing() as db:
            await insert_conversation(db, conversation_id, owner, created, first_text(texts), time.time(), {})
        return conversation_id

    async def import_messages(
        self, owner: str | None, title: str, head: str | None, updated: float, batches: AsyncIterator[list[JSON]]
    ) -> tuple[str, str]:
        """Creates a conversation from batches of message rows, and returns its id and title.

        Each batch is a transaction of its own, so that a long conversation delays no other writer; nobody finds the
        conversation before it is complete. Each message counts as a little newer than the one before it, so that
        branches keep their order.
        """
        new, title = new_id(), title_of(title)
        values = {"id": new, "owner": _IMPORTING, "title": title, "folded": fold_text(title), "head": head}
        added = {"conversation_id": new, "run_id": None}
        times = count(updated, 1e-6)
        async with self.writing() as db:
            await db.execute(insert(conversations).values(values | {"created": updated, "updated": updated}))
        try:
            async for rows in batches:
                async with self.writing() as db:
                    await db.execute(insert(messages), [{**row, **added, "created": next(times)} for row in rows])
            async with self.writing() as db:
                await db.execute(update(conversations).where(conversations.c.id == new).values(owner=owner))
        except BaseException:
            with suppress(ChatError):  # then the next start deletes it
                await asyncio.shield(self.delete(new))
            raise
        return new, title

    async def conversation(self, conversation_id: str, visitor: str | None) -> Conversation:
        """A conversation that this visitor may use. Raises ChatError `not_found` for all others."""
        async with self.reading() as db:
            wanted = select(conversations).where(conversations.c.id == storable(conversation_id))
            row = (await db.execute(wanted)).first()
        if row is None or row.owner not in (None, visitor):
            raise ChatError("not_found", NOT_FOUND)
        return Conversation(
            row.id, row.owner, row.title, row.backend, row.memory, options_of(row), row.head, row.updated
        )

    async def count(self, owner: str) -> int:
        """The number of an owner's conversations."""
        counted = select(func.count()).select_from(conversations).where(conversations.c.owner == owner)
        async with self.reading() as db:
            return int((await db.execute(counted)).scalar_one())

    async def missing(self, ids: Sequence[str]) -> set[str]:
        """Returns those of the ids that no conversation has."""
        found = set[str]()
        async with self.reading() as db:
            for start in range(0, len(ids), _IDS):
                known = select(conversations.c.id).where(conversations.c.id.in_(ids[start : start + _IDS]))
                found.update((await db.execute(known)).scalars())
        return set(ids) - found

    async def delete_idle(self, before: float, spared: Sequence[str] = ()) -> list[str]:
        """Deletes the conversations that were last used before a time (epoch seconds); returns their ids."""
        idle = conversations.c.updated < before, conversations.c.id.not_in(spared)
        async with self.writing() as db:
            gone = await db.execute(delete(conversations).where(*idle).returning(conversations.c.id))
            return [str(one) for one in gone.scalars()]

    async def delete(self, conversation_id: str) -> None:
        """Deletes a conversation with all that belongs to it."""
        async with self.writing() as db:
            await db.execute(delete(conversations).where(conversations.c.id == conversation_id))


async def insert_conversation(
    db: AsyncConnection,
    new: str,
    owner: str | None,
    linear: Sequence[Message],
    title: str,
    now: float,
    values: JSON,
) -> None:
    """Inserts a conversation with the id `new` and its messages, the last of which is its head.

    Raises ChatError `busy` if another request has created it.
    """
    title = title_of(title)
    values = values | {"id": new, "owner": owner, "title": title, "folded": fold_text(title)}
    values |= {"head": linear[-1].id if linear else None, "created": now, "updated": now}
    try:
        await db.execute(insert(conversations).values(values))
    except IntegrityError:
        message = "This conversation has just been begun by another request: send this one again."
        raise ChatError("busy", message, retryable=True) from None
    await insert_messages(db, new, linear, 1, now)


async def update_conversation(db: AsyncConnection, conversation_id: str, text: str, values: JSON) -> str | None:
    """Updates a conversation, gives it a title if it has none, and returns its head.

    It is locked from here on, so that two turns cannot follow the same message. Raises ChatError `not_found`.
    """
    first, untitled = title_of(text), conversations.c.title == ""
    title = case((untitled, first), else_=conversations.c.title)
    folded = case((untitled, fold_text(first)), else_=conversations.c.folded)
    changed = update(conversations).where(conversations.c.id == conversation_id)
    changed = changed.values(title=title, folded=folded, **values)
    row = (await db.execute(changed.returning(conversations.c.head))).first()
    if row is None:
        raise ChatError("not_found", NOT_FOUND)
    return None if row.head is None else str(row.head)


def first_text(texts: Sequence[tuple[Role, str]], default: str = "") -> str:
    """The first text of the user's."""
    return next((text for role, text in texts if role == "user"), default)
