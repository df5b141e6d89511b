"""The store: where conversations, messages and the records of ended runs live.

A message that was acknowledged is on disk. The messages of a conversation are a tree, of which the branch that ends
with its head is the one that is gone on with; nothing is lost by asking an earlier message again.
"""

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any, cast

from sqlalchemy import CursorResult, bindparam, case, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from memory.branches import branch_to, newest_below, path_to
from memory.database import Database
from memory.folded_text import fold_text
from memory.messages import Message, Role, TurnOptions
from memory.rows import message_of, message_row, options_of, parts_column, storable, title_of
from memory.tables import conversations, messages, runs
from runs.errors import NO_RUN, ChatError
from runs.events import JSON
from runs.live import LiveRun, new_id
from runs.threads import Threads

NOT_FOUND = "There is no such conversation, or it is not yours: start a new one."
NO_MESSAGE = "That message is no longer there: reload the page."
_THREADS = Threads("messages", 4)
_INCOMPLETE = "an import that is not whole"
"""Owner of a conversation that is being imported: no visitor's id, so that nobody finds it."""
_IMPORT_S = 3600.0
"""After which another process's import is taken to be dead, in seconds."""


@dataclass(frozen=True, slots=True)
class Conversation:
    id: str
    owner: str | None
    title: str
    backend: str | None
    """The one used last, None for none yet; `memory` likewise."""
    memory: str | None
    options: TurnOptions
    head: str | None
    """The message that its current branch ends with."""
    updated: float
    """Epoch seconds."""


class Store(Database):
    """Open it on the loop that uses it. Every method raises ChatError for what cannot be had or done."""

    async def prepare(self, db: AsyncConnection) -> None:
        """What a dead process left: growing replies become `interrupted`, imports that are not whole are deleted."""
        growing = messages.c.standing == "growing"
        await db.execute(update(messages).where(growing).values(standing="interrupted"))
        left = conversations.c.owner == _INCOMPLETE
        if not self.alone:
            left &= conversations.c.created < time.time() - _IMPORT_S
        await db.execute(delete(conversations).where(left))

    async def create(
        self, owner: str | None, given: Sequence[tuple[Role, str]] = (), conversation_id: str | None = None
    ) -> str:
        """A new conversation with these messages; returns its id, a new one unless it is given."""
        made, conversation_id = _in_line(given), conversation_id or new_id()
        title = next((text for role, text in given if role == "user"), "")
        head = made[-1].id if made else None
        async with self.writing() as db:
            await _take_in(db, conversation_id, owner, made, title, time.time(), {"head": head})
        return conversation_id

    async def import_messages(
        self, owner: str | None, title: str, head: str | None, updated: float, batches: AsyncIterator[list[JSON]]
    ) -> tuple[str, str]:
        """A new conversation whose messages come in batches of rows; its id and title. Nobody finds it before it is
        whole.

        Each batch is a transaction of its own, so that a long conversation holds up no other writer. Each message
        counts as a little newer than the one before it, so that branches keep their order.
        """
        new, title = new_id(), title_of(title)
        values = {"id": new, "owner": _INCOMPLETE, "title": title, "folded": fold_text(title), "head": head}
        added = {"conversation_id": new, "run_id": None}
        moments = count(updated, 1e-6)
        async with self.writing() as db:
            await db.execute(insert(conversations).values(values | {"created": updated, "updated": updated}))
        try:
            async for rows in batches:
                async with self.writing() as db:
                    await db.execute(insert(messages), [{**row, **added, "created": next(moments)} for row in rows])
            async with self.writing() as db:
                await db.execute(update(conversations).where(conversations.c.id == new).values(owner=owner))
        except BaseException:
            with suppress(ChatError):  # then the next start deletes it
                await asyncio.shield(self.delete(new))
            raise
        return new, title

    async def conversation(self, conversation_id: str, visitor: str | None) -> Conversation:
        """A conversation that this visitor may use; raises ChatError `not_found` for all others."""
        async with self.reading() as db:
            wanted = select(conversations).where(conversations.c.id == storable(conversation_id))
            found = (await db.execute(wanted)).first()
        if found is None or found.owner not in (None, visitor):
            raise ChatError("not_found", NOT_FOUND)
        return Conversation(
            found.id,
            found.owner,
            found.title,
            found.backend,
            found.memory,
            options_of(found),
            found.head,
            found.updated,
        )

    async def history(self, conversation_id: str, latest: int | None = None, end: str | None = None) -> list[Message]:
        """The messages of the current branch in order, or of the one that ends with the message `end`.

        With `latest`, only the last so many.
        """
        async with self.reading() as db:
            last = end or await _head(db, conversation_id)
            if last is None:
                return []
            if latest is not None:
                return (await _messages(await db.execute(path_to(conversation_id, last, latest))))[::-1]
            whole = select(messages).where(messages.c.conversation_id == conversation_id)
            return await _messages(await db.execute(whole), last)

    async def tree(self, conversation_id: str) -> list[Message]:
        """All messages, of all branches, each after its parent."""
        wanted = select(messages).where(messages.c.conversation_id == conversation_id)
        async with self.reading() as db:
            return await _messages(await db.execute(wanted.order_by(messages.c.place, messages.c.created)))

    async def size(self, conversation_id: str) -> int:
        """How many messages the current branch has."""
        head = select(conversations.c.head).where(conversations.c.id == conversation_id).scalar_subquery()
        async with self.reading() as db:
            place = await db.execute(select(messages.c.place).where(messages.c.id == head))
            return int(place.scalar_one_or_none() or 0)

    async def siblings(self, conversation_id: str, parents: Sequence[str | None]) -> dict[str | None, list[str]]:
        """For each of these messages (None: the beginning) the ids of what follows it, the oldest first."""
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
        """One message of a conversation."""
        async with self.reading() as db:
            return message_of(await _message(db, conversation_id, message_id))

    async def switch_branch(self, conversation_id: str, message_id: str) -> None:
        """Makes the branch that this message belongs to the current one, to its newest end."""
        async with self.writing() as db:
            await _message(db, conversation_id, message_id)
            newest = (await db.execute(newest_below(conversation_id, message_id))).scalar_one()
            await _go_on_from(db, conversation_id, newest)

    async def rewind(self, conversation_id: str, message_id: str) -> None:
        """Goes on from before this message; it and what follows it stay, as another branch."""
        async with self.writing() as db:
            before = (await _message(db, conversation_id, message_id)).parent_id
            await _go_on_from(db, conversation_id, before)

    async def begin_turn(
        self,
        run: LiveRun,
        text: str,
        *,
        earlier: Sequence[tuple[Role, str]] | None = None,
        edit_of: str | None = None,
        regenerate: str | None = None,
        options: TurnOptions = TurnOptions(),  # noqa: B008 - frozen
    ) -> tuple[Message, Message]:
        """Writes the user's message and an empty growing reply, in one transaction; returns both.

        With `earlier`, messages of which there may be none, the conversation is new, and begins with them. The message
        comes after the head; or beside the message `edit_of`, as another branch. With `regenerate`, that message
        gets another reply, and none is written. Raises ChatError `not_found` for a conversation, or a message, that has
        gone meanwhile.
        """
        now, used = time.time(), {"backend": run.backend, "memory": run.memory, **asdict(options)}
        this, place, rows = run.conversation_id, 1, []
        async with self.writing() as db:
            if earlier is not None:
                made = _in_line(earlier)
                head = made[-1].id if made else None
                first = next((said for role, said in earlier if role == "user"), text)
                await _take_in(db, this, run.owner, made, first, now, used)
            else:
                head = await _use(db, this, text, {"updated": now, **used})
            if regenerate:
                row = await _message(db, this, regenerate)
                asked, place = message_of(row), row.place
            else:
                before = (await _message(db, this, edit_of)).parent_id if edit_of else head
                if before:
                    place = (await _message(db, this, before)).place + 1
                asked = Message(new_id(), "user", text, run_id=run.id, parent_id=before)
                rows.append(message_row(asked, this, place, now))
            reply = Message(new_id(), "assistant", "", "growing", run.id, parent_id=asked.id, backend=run.backend)
            await db.execute(insert(messages), [*rows, message_row(reply, this, place + 1, now)])
            await _go_on_from(db, this, reply.id)
        return asked, reply

    async def append(self, conversation_id: str, given: Sequence[tuple[Role, str]]) -> None:
        """Whole messages after the current branch's end, none of which is answered."""
        now, rows = time.time(), []
        async with self.writing() as db:
            head = await _use(db, conversation_id, next((t for r, t in given if r == "user"), ""), {"updated": now})
            place = (await _message(db, conversation_id, head)).place if head else 0
            for n, (role, text) in enumerate(given, place + 1):
                made = Message(new_id(), role, text, parent_id=head)
                rows.append(message_row(made, conversation_id, n, now))
                head = made.id
            if rows:
                await db.execute(insert(messages), rows)
                await _go_on_from(db, conversation_id, head)

    async def save_growing(self, replies: Sequence[Message]) -> None:
        """Each reply so far, in one transaction; one that has ended meanwhile is left as it ended."""
        growing = update(messages).where(messages.c.id == bindparam("reply"), messages.c.standing == "growing")
        rows = [
            {"reply": one.id, "text": storable(one.text), "parts": parts_column(one)}
            | {"backend": one.backend, "model": one.model}
            for one in replies
        ]
        async with self.writing() as db:
            await db.execute(growing, rows)

    async def end_turn(self, run: LiveRun, reply: Message, record: str) -> None:
        """The reply as it ended and the run's record (JSON lines), in one transaction."""
        now, packed, text = time.time(), zlib.compress(record.encode(), 1), storable(reply.text)
        ended = {
            "text": text,
            "folded": fold_text(text),
            "standing": reply.standing,
            "note": reply.note and storable(reply.note),
            "parts": parts_column(reply),
            "backend": reply.backend,
            "model": reply.model,
        }
        row = {"id": run.id, "conversation_id": run.conversation_id, "created": now, "record": packed}
        async with self.writing() as db:
            known = await db.execute(update(messages).where(messages.c.id == reply.id).values(ended))
            await db.execute(delete(runs).where(runs.c.id == run.id))  # an earlier attempt may have come through
            if known.rowcount:  # the visitor may have deleted the conversation meanwhile
                await db.execute(insert(runs).values(row))

    async def record(self, run_id: str) -> str:
        """An ended run's events as JSON lines; raises ChatError `not_found`."""
        return decompressed(await self.compressed_record(run_id))

    async def compressed_record(self, run_id: str) -> bytes:
        """The same as it is stored, for `decompressed` or `zlib`."""
        async with self.reading() as db:
            wanted = select(runs.c.record).where(runs.c.id == storable(run_id))
            packed = (await db.execute(wanted)).scalar_one_or_none()
        if packed is None:
            raise ChatError("not_found", NO_RUN)
        return bytes(packed)

    async def conversation_of(self, run_id: str) -> str:
        """The conversation that an ended run belongs to; raises ChatError `not_found`."""
        async with self.reading() as db:
            wanted = select(runs.c.conversation_id).where(runs.c.id == storable(run_id))
            found = (await db.execute(wanted)).scalar_one_or_none()
        if found is None:
            raise ChatError("not_found", NO_RUN)
        return str(found)

    async def answered_message(self, run_id: str) -> Message | None:
        """The message that a run answered; None if nothing of the run is stored."""
        reply = messages.alias()
        answered = (reply.c.run_id == storable(run_id)) & (reply.c.role == "assistant")
        wanted = select(messages).join(reply, reply.c.parent_id == messages.c.id).where(answered)
        async with self.reading() as db:
            found = (await db.execute(wanted)).first()
        return message_of(found) if found else None

    async def count(self, owner: str) -> int:
        """How many conversations are this owner's."""
        counted = select(func.count()).select_from(conversations).where(conversations.c.owner == owner)
        async with self.reading() as db:
            return int((await db.execute(counted)).scalar_one())

    async def newest_run(self, owner: str, text: str, **same: str) -> str | None:
        """The run that this owner's message of this text began last; `same` is its conversation's id and what that
        has used last.
        """
        asked = messages.join(conversations, messages.c.conversation_id == conversations.c.id)
        newest = select(messages.c.run_id).select_from(asked).order_by(messages.c.created.desc())
        newest = newest.where(messages.c.role == "user", messages.c.text == storable(text))
        newest = newest.where(conversations.c.owner == owner)
        for name, value in same.items():
            column = conversations.c["id" if name == "conversation_id" else name]
            newest = newest.where(column == storable(value))
        async with self.reading() as db:
            return cast(str | None, (await db.execute(newest.limit(1))).scalar_one_or_none())

    async def delete_idle(self, before: float, spared: Sequence[str] = ()) -> int:
        """Deletes the conversations that nobody has gone on with since then (epoch seconds); returns how many."""
        idle = conversations.c.updated < before, conversations.c.id.not_in(spared)
        async with self.writing() as db:
            return (await db.execute(delete(conversations).where(*idle))).rowcount

    async def delete(self, conversation_id: str) -> None:
        """Deletes a conversation with all that belongs to it."""
        async with self.writing() as db:
            await db.execute(delete(conversations).where(conversations.c.id == conversation_id))


def decompressed(record: bytes) -> str:
    """A record as it was before it was stored."""
    return zlib.decompress(record).decode()


async def _messages(found: CursorResult[Any], last: str | None = None) -> list[Message]:
    """The rows as messages; with `last` those of the branch that ends with this message.

    In a thread, since only when their parts have been parsed is it known how long they are.
    """

    def made() -> list[Message]:
        rows = found.all()
        return [message_of(row) for row in (rows if last is None else branch_to(rows, last))]

    return await _THREADS.run(made)


async def _head(db: AsyncConnection, conversation_id: str) -> str | None:
    found = await db.execute(select(conversations.c.head).where(conversations.c.id == conversation_id))
    return cast(str | None, found.scalar_one_or_none())


async def _use(db: AsyncConnection, conversation_id: str, text: str, used: JSON) -> str | None:
    """Notes what a conversation uses now, and returns its head. It is locked from here on: two turns cannot both follow
    the same message. Raises ChatError `not_found`.
    """
    first, untitled = title_of(text), conversations.c.title == ""
    title = case((untitled, first), else_=conversations.c.title)
    folded = case((untitled, fold_text(first)), else_=conversations.c.folded)
    changed = update(conversations).where(conversations.c.id == conversation_id)
    changed = changed.values(title=title, folded=folded, **used)
    found = (await db.execute(changed.returning(conversations.c.head))).first()
    if found is None:
        raise ChatError("not_found", NOT_FOUND)
    return cast(str | None, found.head)


async def _message(db: AsyncConnection, conversation_id: str, message_id: str) -> Any:
    """A message's row. Raises ChatError `not_found`."""
    wanted = messages.c.id == storable(message_id), messages.c.conversation_id == conversation_id
    found = (await db.execute(select(messages).where(*wanted))).first()
    if found is None:
        raise ChatError("not_found", NO_MESSAGE)
    return found


async def _go_on_from(db: AsyncConnection, conversation_id: str, head: str | None) -> None:
    await db.execute(update(conversations).where(conversations.c.id == conversation_id).values(head=head))


def _in_line(given: Sequence[tuple[Role, str]]) -> list[Message]:
    """New messages, each after the one before."""
    made: list[Message] = []
    for role, text in given:
        made.append(Message(new_id(), role, text, parent_id=made[-1].id if made else None))
    return made


async def _take_in(
    db: AsyncConnection, new: str, owner: str | None, given: Sequence[Message], title: str, now: float, values: JSON
) -> None:
    """A conversation with the id `new`, and its messages, each after the one before.

    Raises ChatError `busy` if another request was quicker.
    """
    title = title_of(title)
    values |= {"id": new, "owner": owner, "title": title, "folded": fold_text(title), "created": now, "updated": now}
    try:
        await db.execute(insert(conversations).values(values))
    except IntegrityError:
        told = "This conversation has just been begun by another request: send this one again."
        raise ChatError("busy", told, retryable=True) from None
    if given:  # folding many messages would hold the loop
        rows = await _THREADS.run(lambda: [message_row(m, new, n, now) for n, m in enumerate(given, 1)])
        await db.execute(insert(messages), rows)
