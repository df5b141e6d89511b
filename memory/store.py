"""The store: where conversations, messages and the records of ended runs live. SQLite through SQLAlchemy's asyncio.

A message that was acknowledged is on disk. Whatever the database refuses becomes a `ChatError` with a sentence for
people.
"""

import logging
import time
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Connection, Row, case, delete, event, func, insert, inspect, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from memory.messages import Message, Role, Standing, Tuning
from memory.tables import conversations, messages, metadata, runs
from runs.errors import ChatError
from runs.events import JSON
from runs.live import LiveRun, new_id
from runs.parts import Part

logger = logging.getLogger(__name__)

_BUSY_MS = 2500
"""How long a locked database is waited for; less than the time that a run's end waits for its saving."""
_TITLE = 60
NO_RUN = "There is no such run, or it is not yours."
NOT_FOUND = "There is no such conversation, or it is not yours: start a new one."


@dataclass(frozen=True, slots=True)
class Conversation:
    id: str
    owner: str | None
    title: str
    backend: str | None
    """The one used last, None for none yet; `memory` likewise."""
    memory: str | None
    tuning: Tuning


class Store:
    """Open it on the loop that uses it."""

    def __init__(self, url: str) -> None:
        self._url = url.replace("sqlite:///", "sqlite+aiosqlite:///", 1)
        self._engine: AsyncEngine | None = None

    async def open(self) -> None:
        """Makes the tables; replies that a dead process left growing become `interrupted`.

        A database that cannot be written does not stop the start: each use of it then says so.
        """
        with suppress(OSError):
            Path(self._url.partition(":///")[2]).parent.mkdir(parents=True, exist_ok=True)
        self._engine = create_async_engine(self._url)
        event.listen(self._engine.sync_engine, "connect", _configure)
        try:
            async with self._begin() as db:
                await db.run_sync(metadata.create_all)
                await db.run_sync(_add_columns)
                growing = messages.c.standing == "growing"
                await db.execute(update(messages).where(growing).values(standing="interrupted"))
        except ChatError as e:
            logger.error("the store at the start: %s", e.message)

    async def close(self) -> None:
        if self._engine:
            await self._engine.dispose()

    async def create(
        self, owner: str | None, given: Sequence[tuple[Role, str]] = (), conversation_id: str | None = None
    ) -> str:
        """A new conversation with these messages; returns its id, a new one unless it is given."""
        conversation_id, now = conversation_id or new_id(), time.time()
        title = next((text for role, text in given if role == "user"), "")
        rows = [
            _row(Message(new_id(), role, text), conversation_id, place, now)
            for place, (role, text) in enumerate(given, 1)
        ]
        async with self._begin() as db:
            await db.execute(_new_conversation(conversation_id, owner, title, now))
            if rows:
                await db.execute(insert(messages), rows)
        return conversation_id

    async def conversation(self, conversation_id: str, visitor: str | None) -> Conversation:
        """A conversation that this visitor may use; raises ChatError `not_found` for all others."""
        async with self._read() as db:
            found = (await db.execute(select(conversations).where(conversations.c.id == conversation_id))).first()
        if found is None or found.owner not in (None, visitor):
            raise ChatError("not_found", NOT_FOUND)
        tools = None if found.tools is None else tuple(found.tools)
        tuning = Tuning(found.system_prompt, found.temperature, found.max_tokens, tools)
        return Conversation(found.id, found.owner, found.title, found.backend, found.memory, tuning)

    async def history(self, conversation_id: str, latest: int | None = None) -> list[Message]:
        """The messages in order; with `latest`, only the last so many."""
        wanted = select(messages).where(messages.c.conversation_id == conversation_id)
        ordered = wanted.order_by(messages.c.place.desc()).limit(latest)
        async with self._read() as db:
            rows = (await db.execute(ordered)).all()
        return [_message(row) for row in reversed(rows)]

    async def size(self, conversation_id: str) -> int:
        """How many messages there are."""
        counted = select(func.count()).where(messages.c.conversation_id == conversation_id)
        async with self._read() as db:
            return int((await db.execute(counted)).scalar_one())

    async def begin_turn(
        self,
        run: LiveRun,
        text: str,
        *,
        new: bool = False,
        instead_of: str | None = None,
        tuning: Tuning = Tuning(),  # noqa: B008 - frozen
    ) -> tuple[Message, Message]:
        """Writes the user's message and an empty growing reply, in one transaction; returns both.

        A `new` conversation is made first. The message `instead_of`, and all after it, give way. Raises ChatError
        `not_found` for a conversation that has gone meanwhile.
        """
        now, used = time.time(), {"backend": run.backend, "memory": run.memory, **asdict(tuning)}
        asked = Message(new_id(), "user", text, run_id=run.id)
        reply = Message(new_id(), "assistant", "", "growing", run.id)
        async with self._begin() as db:
            if instead_of:
                await self._cut(db, run.conversation_id, instead_of)
            if new:
                await db.execute(_new_conversation(run.conversation_id, run.owner, text, now).values(used))
            else:
                this = conversations.c.id == run.conversation_id
                title = case((conversations.c.title == "", _title(text)), else_=conversations.c.title)
                known = await db.execute(update(conversations).where(this).values(updated=now, title=title, **used))
                if not known.rowcount:
                    raise ChatError("not_found", NOT_FOUND)
            last = select(func.max(messages.c.place)).where(messages.c.conversation_id == run.conversation_id)
            place = ((await db.execute(last)).scalar_one_or_none() or 0) + 1
            rows = [_row(m, run.conversation_id, place + i, now) for i, m in enumerate((asked, reply))]
            await db.execute(insert(messages), rows)
        return asked, reply

    async def grow(self, reply: Message) -> None:
        """The reply so far."""
        async with self._begin() as db:
            await db.execute(
                update(messages).where(messages.c.id == reply.id).values(text=reply.text, parts=_parts(reply))
            )

    async def end_turn(self, run: LiveRun, reply: Message, record: str) -> None:
        """The reply as it ended and the run's record (JSON lines), in one transaction."""
        packed = zlib.compress(record.encode(), 1)
        ended = {"text": reply.text, "standing": reply.standing, "note": reply.note, "parts": _parts(reply)}
        row = {"id": run.id, "conversation_id": run.conversation_id, "created": time.time(), "record": packed}
        async with self._begin() as db:
            known = await db.execute(update(messages).where(messages.c.id == reply.id).values(ended))
            await db.execute(delete(runs).where(runs.c.id == run.id))  # an earlier attempt may have come through
            if known.rowcount:  # the visitor may have deleted the conversation meanwhile
                await db.execute(insert(runs).values(row))

    async def record(self, run_id: str) -> str:
        """An ended run's events as JSON lines; raises ChatError `not_found`."""
        async with self._read() as db:
            packed = (await db.execute(select(runs.c.record).where(runs.c.id == run_id))).scalar_one_or_none()
        if packed is None:
            raise ChatError("not_found", NO_RUN)
        return zlib.decompress(packed).decode()

    async def conversation_of(self, run_id: str) -> str:
        """The conversation that an ended run belongs to; raises ChatError `not_found`."""
        async with self._read() as db:
            found = (await db.execute(select(runs.c.conversation_id).where(runs.c.id == run_id))).scalar_one_or_none()
        if found is None:
            raise ChatError("not_found", NO_RUN)
        return str(found)

    async def newest_run(self, owner: str, text: str, **same: str) -> str | None:
        """The run that this owner's message of this text began last; `same` is its conversation's id and what that
        has used last.
        """
        asked = messages.join(conversations, messages.c.conversation_id == conversations.c.id)
        newest = select(messages.c.run_id).select_from(asked).order_by(messages.c.created.desc())
        newest = newest.where(messages.c.role == "user", messages.c.text == text, conversations.c.owner == owner)
        for name, value in same.items():
            newest = newest.where(conversations.c["id" if name == "conversation_id" else name] == value)
        async with self._read() as db:
            return cast(str | None, (await db.execute(newest.limit(1))).scalar_one_or_none())

    async def cut(self, conversation_id: str, from_message: str) -> None:
        """Deletes a message and all after it."""
        async with self._begin() as db:
            await self._cut(db, conversation_id, from_message)

    async def delete(self, conversation_id: str) -> None:
        """Deletes a conversation with all that belongs to it."""
        async with self._begin() as db:
            await db.execute(delete(conversations).where(conversations.c.id == conversation_id))

    async def _cut(self, db: AsyncConnection, conversation_id: str, from_message: str) -> None:
        place = select(messages.c.place).where(
            messages.c.id == from_message, messages.c.conversation_id == conversation_id
        )
        first = (await db.execute(place)).scalar_one_or_none()
        if first is None:
            raise ChatError("not_found", "That message is no longer there: reload the page.")
        gone = messages.c.conversation_id == conversation_id, messages.c.place >= first
        await db.execute(delete(messages).where(*gone))

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[AsyncConnection]:
        assert self._engine is not None
        try:
            async with self._engine.begin() as db:
                yield db
        except (SQLAlchemyError, OSError) as e:
            raise _explained(e, "saved") from e

    @asynccontextmanager
    async def _read(self) -> AsyncIterator[AsyncConnection]:
        assert self._engine is not None
        try:
            async with self._engine.connect() as db:
                yield db
        except (SQLAlchemyError, OSError) as e:
            raise _explained(e, "read") from e


def _add_columns(db: Connection) -> None:
    """Adds what a database of an earlier version lacks; all columns that came later may be null."""
    for table in metadata.sorted_tables:
        there = {column["name"] for column in inspect(db).get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                kind = column.type.compile(db.dialect)
                db.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}")


def _configure(connection: Any, _: Any) -> None:
    """Write-ahead log: readers do not wait for the writer, and a killed process leaves a sound file."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    cursor.execute("PRAGMA foreign_keys = ON")
    try:
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
    except Exception as e:  # the driver's own kinds; a read-only file is still good to read
        if "readonly" not in str(e) and "locked" not in str(e):
            raise
    cursor.close()


_CAUSES = {
    "locked": "the database is locked by another program",
    "readonly": "the database cannot be written (read-only)",
    "full": "the disk is full",
    "unable to open": "the database file cannot be opened",
    "malformed": "the database file is damaged",
    "not a database": "the database file is damaged",
}


def _explained(error: Exception, done: str) -> ChatError:
    text = str(error).lower()
    cause = next((cause for sign, cause in _CAUSES.items() if sign in text), "the database failed")
    return ChatError("internal", f"This could not be {done}: {cause}. Tell whoever runs this app.", retryable=True)


def _new_conversation(conversation_id: str, owner: str | None, first: str, now: float) -> Any:
    return insert(conversations).values(id=conversation_id, owner=owner, title=_title(first), created=now, updated=now)


def _title(first: str) -> str:
    """A conversation's title, of the first message of the user's."""
    return " ".join(first.split())[:_TITLE]


def _row(message: Message, conversation_id: str, place: int, now: float) -> dict[str, Any]:
    return {
        "id": message.id,
        "conversation_id": conversation_id,
        "place": place,
        "role": message.role,
        "text": message.text,
        "standing": message.standing,
        "run_id": message.run_id,
        "note": message.note,
        "parts": _parts(message),
        "created": now,
    }


def _parts(message: Message) -> list[JSON] | None:
    return [part.wire() for part in message.parts] or None


def _message(row: Row[Any]) -> Message:
    role, standing, parts = (
        cast(Role, row.role),
        cast(Standing, row.standing),
        tuple(Part(**p) for p in row.parts or ()),
    )
    return Message(row.id, role, row.text, standing, row.run_id, row.note, parts=parts)
