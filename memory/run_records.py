"""The records of ended runs in the database."""

import zlib
from typing import Any, cast

from sqlalchemy import Select, select

from memory.database import Database
from memory.messages import Message
from memory.rows import message_of, storable
from memory.tables import conversations, messages, runs
from runs.errors import NO_RUN, ChatError


class RunRecords(Database):
    """The methods of the store for the records of runs."""

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
