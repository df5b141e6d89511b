"""Turns in the database: the user's message, the growing reply, and the ended reply with its run's record."""

import time
import zlib
from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import Select, bindparam, delete, insert, select, update

from memory.database import Database
from memory.folded_text import fold_text
from memory.message_tree import insert_messages, linear_messages, message_row_of, set_head
from memory.messages import Message, Role
from memory.options import TurnOptions
from memory.rows import message_of, message_row, parts_column, storable
from memory.stored_conversations import first_text, insert_conversation, update_conversation
from memory.stored_costs import insert_cost
from memory.tables import conversations, messages, runs
from runs.errors import NO_RUN, ChatError
from runs.images import Image
from runs.live import LiveRun, new_id


class StoredTurns(Database):
    """The methods of the store for turns and their records."""

    async def begin_turn(
        self,
        run: LiveRun,
        text: str,
        *,
        earlier: Sequence[tuple[Role, str]] | None = None,
        edit_of: str | None = None,
        regenerate: str | None = None,
        options: TurnOptions = TurnOptions(),  # noqa: B008 - frozen
        images: Sequence[Image] = (),
    ) -> tuple[Message, Message]:
        """Writes the user's message and an empty growing reply in one transaction; returns both.

        With `earlier`, which may be empty, the conversation is new and begins with these messages. The message comes
        after the head; or beside the message `edit_of`, as another branch. With `regenerate`, that message gets
        another reply, and `text` and `images` are not read. Raises ChatError `not_found` for a conversation or message
        that was deleted meanwhile.
        """
        now, used = time.time(), {"backend": run.backend, "memory": run.memory, **options.model_dump()}
        this, place, rows = run.conversation_id, 1, []
        async with self.writing() as db:
            if earlier is not None:
                linear = linear_messages(earlier)
                head = linear[-1].id if linear else None
                await insert_conversation(db, this, run.owner, linear, first_text(earlier, text), now, used)
            else:
                head = await update_conversation(db, this, text, {"updated": now, **used})
            if regenerate:
                row = await message_row_of(db, this, regenerate)
                asked, place = message_of(row), row.place
            else:
                before = (await message_row_of(db, this, edit_of)).parent_id if edit_of else head
                if before:
                    place = (await message_row_of(db, this, before)).place + 1
                asked = Message(new_id(), "user", text, run_id=run.id, parent_id=before, images=tuple(images))
                rows.append(message_row(asked, this, place, now))
            reply = Message(new_id(), "assistant", "", "growing", run.id, parent_id=asked.id, backend=run.backend)
            await db.execute(insert(messages), [*rows, message_row(reply, this, place + 1, now)])
            await set_head(db, this, reply.id)
        return asked, reply

    async def append(self, conversation_id: str, texts: Sequence[tuple[Role, str]]) -> None:
        """Adds complete messages at the end of the current branch; none of them is answered."""
        now = time.time()
        async with self.writing() as db:
            head = await update_conversation(db, conversation_id, first_text(texts), {"updated": now})
            place = (await message_row_of(db, conversation_id, head)).place if head else 0
            if linear := linear_messages(texts, head):
                await insert_messages(db, conversation_id, linear, place + 1, now)
                await set_head(db, conversation_id, linear[-1].id)

    async def save_growing(self, replies: Sequence[Message]) -> None:
        """Writes each reply so far in one transaction, except those that have ended meanwhile."""
        growing = update(messages).where(messages.c.id == bindparam("reply"), messages.c.standing == "growing")
        rows = [
            {"reply": reply.id, "text": storable(reply.text), "parts": parts_column(reply)}
            | {"backend": reply.backend, "model": reply.model}
            for reply in replies
        ]
        async with self.writing() as db:
            await db.execute(growing, rows)

    async def end_turn(self, run: LiveRun, reply: Message, record: str) -> None:
        """Writes the ended reply and the run's record (JSON lines) in one transaction."""
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
            # an earlier attempt may have succeeded
            again = (await db.execute(delete(runs).where(runs.c.id == run.id))).rowcount
            if known.rowcount:  # the visitor may have deleted the conversation meanwhile
                await db.execute(insert(runs).values(row))
            if (dollars := run.usage().get("cost_usd")) and not again:
                await insert_cost(db, run.conversation_id, run.requester.visitor, dollars)

    async def record(self, run_id: str) -> str:
        """An ended run's events as JSON lines. Raises ChatError `not_found`."""
        return decompressed(await self.compressed_record(run_id))

    async def compressed_record(self, run_id: str) -> bytes:
        """The record as it is stored, for `decompressed` or `zlib`. Raises ChatError `not_found`."""
        return bytes(await self._value(select(runs.c.record).where(runs.c.id == storable(run_id))))

    async def conversation_of(self, run_id: str) -> str:
        """The id of an ended run's conversation. Raises ChatError `not_found`."""
        return str(await self._value(select(runs.c.conversation_id).where(runs.c.id == storable(run_id))))

    async def answered_message(self, run_id: str) -> Message | None:
        """The message that a run answered; None if nothing of the run is stored."""
        reply = messages.alias()
        answered = (reply.c.run_id == storable(run_id)) & (reply.c.role == "assistant")
        wanted = select(messages).join(reply, reply.c.parent_id == messages.c.id).where(answered)
        async with self.reading() as db:
            found = (await db.execute(wanted)).first()
        return message_of(found) if found else None

    async def latest_run(self, owner: str) -> str | None:
        """The id of the newest ended run in the owner's latest conversation that has one."""
        found = conversations.join(runs, runs.c.conversation_id == conversations.c.id)
        wanted = select(runs.c.id).select_from(found).where(conversations.c.owner == owner)
        wanted = wanted.order_by(conversations.c.updated.desc(), runs.c.created.desc()).limit(1)
        async with self.reading() as db:
            return cast(str | None, (await db.execute(wanted)).scalar_one_or_none())

    async def newest_run(self, owner: str, text: str, **same: str) -> str | None:
        """The id of the owner's newest run for a message of this text.

        `same` narrows the search to a `conversation_id`, or to the values that its conversation used last.
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

    async def _value(self, wanted: Select[Any]) -> Any:
        async with self.reading() as db:
            value = (await db.execute(wanted)).scalar_one_or_none()
        if value is None:
            raise ChatError("not_found", NO_RUN)
        return value


def decompressed(record: bytes) -> str:
    """A stored record as JSON lines."""
    return zlib.decompress(record).decode()
