"""The messages of a conversation in the database: a tree, whose branch that ends with the head is the current one.

A new answer or an edited message begins another branch; nothing is lost.
"""

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import CursorResult, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from memory.branches import branch_to, newest_below, path_to
from memory.database import Database
from memory.messages import Message, Role
from memory.rows import message_of, message_row, storable
from memory.tables import conversations, messages
from runs.errors import ChatError
from runs.live import new_id
from runs.threads import Threads

NO_MESSAGE = "That message is no longer there: reload the page."
_THREADS = Threads("messages", 4)


class MessageTree(Database):
    """The methods of the store for messages and branches."""

    async def history(self, conversation_id: str, latest: int | None = None, end: str | None = None) -> list[Message]:
        """The messages of the current branch in order, or of the branch that ends with the message `end`.

        `latest` limits them to the last ones.
        """
        async with self.reading() as db:
            last = end or await _head(db, conversation_id)
            if last is None:
                return []
            if latest is not None:
                return (await _messages(await db.execute(path_to(conversation_id, last, latest))))[::-1]
            every = select(messages).where(messages.c.conversation_id == conversation_id)
            return await _messages(await db.execute(every), last)

    async def tree(self, conversation_id: str) -> list[Message]:
        """The messages of all branches, each after its parent."""
        wanted = select(messages).where(messages.c.conversation_id == conversation_id)
        async with self.reading() as db:
            return await _messages(await db.execute(wanted.order_by(messages.c.place, messages.c.created)))

    async def size(self, conversation_id: str) -> int:
        """The number of messages of the current branch."""
        head = select(conversations.c.head).where(conversations.c.id == conversation_id).scalar_subquery()
        async with self.reading() as db:
            place = await db.execute(select(messages.c.place).where(messages.c.id == head))
            return int(place.scalar_one_or_none() or 0)

    async def siblings(self, conversation_id: str, parents: Sequence[str | None]) -> dict[str | None, list[str]]:
        """The ids of the messages after each of these messages (None: the beginning), the oldest first."""
        known = [parent for parent in parents if parent is not None]
        wanted = select(messages.c.id, messages.c.parent_id).where(messages.c.conversation_id == conversation_id)
        after = messages.c.parent_id.in_(known)
        wanted = wanted.where(after | messages.c.parent_id.is_(None) if None in parents else after)
        found: dict[str | None, list[str]] = {parent: [] for parent in parents}
        async with self.reading() as db:
            for row in await db.execute(wanted.order_by(messages.c.created, messages.c.id)):
                found[row.parent_id].append(row.id)
        return found

    async def message(self, conversation_id: str, message_id: str) -> Message:
        """One message of a conversation. Raises ChatError `not_found`."""
        async with self.reading() as db:
            return message_of(await message_row_of(db, conversation_id, message_id))

    async def switch_branch(self, conversation_id: str, message_id: str) -> None:
        """Makes this message's branch the current one, up to its newest end. Raises ChatError `not_found`."""
        async with self.writing() as db:
            await message_row_of(db, conversation_id, message_id)
            newest = (await db.execute(newest_below(conversation_id, message_id))).scalar_one()
            await set_head(db, conversation_id, newest)

    async def rewind(self, conversation_id: str, message_id: str) -> None:
        """Continues the conversation from before this message, which stays as another branch.

        Raises ChatError `not_found`.
        """
        async with self.writing() as db:
            await set_head(db, conversation_id, (await message_row_of(db, conversation_id, message_id)).parent_id)


async def message_row_of(db: AsyncConnection, conversation_id: str, message_id: str) -> Any:
    """The row of a message. Raises ChatError `not_found`."""
    wanted = messages.c.id == storable(message_id), messages.c.conversation_id == conversation_id
    row = (await db.execute(select(messages).where(*wanted))).first()
    if row is None:
        raise ChatError("not_found", NO_MESSAGE)
    return row


async def set_head(db: AsyncConnection, conversation_id: str, head: str | None) -> None:
    """Makes the branch that ends with this message the current one."""
    await db.execute(update(conversations).where(conversations.c.id == conversation_id).values(head=head))


def linear_messages(texts: Sequence[tuple[Role, str]], parent_id: str | None = None) -> list[Message]:
    """New messages in one branch, the first after `parent_id`."""
    created: list[Message] = []
    for role, text in texts:
        created.append(Message(new_id(), role, text, parent_id=parent_id))
        parent_id = created[-1].id
    return created


async def insert_messages(
    db: AsyncConnection, conversation_id: str, linear: Sequence[Message], place: int, now: float
) -> None:
    """Inserts the messages of one branch, the first at a depth of `place`."""
    if linear:  # in a thread, since folding many messages would block the event loop
        rows = await _THREADS.run(
            lambda: [message_row(m, conversation_id, n, now) for n, m in enumerate(linear, place)]
        )
        await db.execute(insert(messages), rows)


async def _messages(found: CursorResult[Any], last: str | None = None) -> list[Message]:
    """The rows as messages; with `last` only those of the branch that ends with it.

    They are created in a thread: how much work that is depends on their parts.
    """

    def created() -> list[Message]:
        rows = found.all()
        return [message_of(row) for row in (rows if last is None else branch_to(rows, last))]

    return await _THREADS.run(created)


async def _head(db: AsyncConnection, conversation_id: str) -> str | None:
    found = await db.execute(select(conversations.c.head).where(conversations.c.id == conversation_id))
    return cast(str | None, found.scalar_one_or_none())
