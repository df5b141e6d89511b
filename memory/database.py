"""The database behind the store: its engine and transactions; its errors become sentences for people.

The URL chooses SQLite (with a write-ahead log) or PostgreSQL. Nothing here knows a conversation.
"""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from memory.migrations import migrate
from runs.errors import ChatError

logger = logging.getLogger(__name__)

_BUSY_MS = 1200
"""Milliseconds to wait for a locked database. Saving a growing and then an ended reply takes less than a run waits."""
_CONNECT_S = 3
_TURN_S = 15.0
"""Seconds that a write waits for its turn."""
_WRITERS = 10
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}


class Database:
    """An asynchronous database. Open it on the loop that uses it; its tables are migrated before the first use."""

    def __init__(self, url: str) -> None:
        """`url` begins with sqlite: or postgresql:, without a driver.

        Raises ValueError for another one, without repeating it, since it may hold a password.
        """
        scheme, _, rest = url.partition("://")
        try:
            self._url = make_url(f"{_DRIVERS[scheme]}://{rest}")
        except (KeyError, ValueError, ArgumentError):
            raise ValueError(
                "this is no address of a database; a password's special characters are written %XX"
            ) from None
        self._engine: AsyncEngine | None = None
        self._ready = False
        self._migrating = asyncio.Lock()
        self._writers = asyncio.Semaphore(1 if self.alone else _WRITERS)
        """SQLite allows one writer; a second one only polls, and may never get its turn."""

    @property
    def alone(self) -> bool:
        """True if no other process uses the database."""
        return self._url.get_backend_name() == "sqlite"

    async def open(self) -> None:
        """Opens the database. A failure is logged and does not stop the start: each use tries again."""
        if self.alone:
            with suppress(OSError):
                Path(self._url.database or "").parent.mkdir(parents=True, exist_ok=True)
            connect = {"factory": _Connection, "async_creator_fn": _driver_connection}
            self._engine = create_async_engine(self._url, connect_args=connect)
            event.listen(self._engine.sync_engine, "connect", _configure)
        else:
            options = {"connect_timeout": _CONNECT_S, "application_name": "glassbox"}
            self._engine = create_async_engine(self._url, connect_args=options, pool_pre_ping=True)
        try:
            async with self.writing():
                pass
        except ChatError as e:
            logger.error("the store at start: %s", e)

    async def check(self) -> None:
        """Raises ChatError if the database does not answer."""
        async with self.reading() as db:
            await db.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Closes all connections."""
        if self._engine:
            await self._engine.dispose()

    async def prepare(self, db: AsyncConnection) -> None:
        """Runs once, in a transaction of its own, after the migration and before anything else."""

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction. Raises ChatError `internal`."""
        with _explained("saved"):
            await self._migrate()
            await self._acquire_writer()
            try:
                async with self._opened().begin() as db:
                    yield db
            finally:
                self._writers.release()

    async def _acquire_writer(self) -> None:
        try:
            async with asyncio.timeout(_TURN_S):
                await self._writers.acquire()
        except TimeoutError:
            message = "This could not be saved: the database has too much to do. Try again in a minute."
            raise ChatError("internal", message, retryable=True) from None

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reading. Raises ChatError `internal`."""
        with _explained("read"):
            await self._migrate()
            async with self._opened().connect() as db:
                yield db

    def _opened(self) -> AsyncEngine:
        assert self._engine is not None, "open it first"
        return self._engine

    async def _migrate(self) -> None:
        if self._ready:
            return
        async with self._migrating:
            if self._ready:
                return
            async with self._opened().begin() as db:
                await db.run_sync(migrate)
            self._ready = True
            async with self._opened().begin() as db:
                await self.prepare(db)


class _Connection(sqlite3.Connection):
    """A connection that ends its transaction when it is closed.

    SQLAlchemy closes a connection whose task was cancelled within a statement. Without a rollback, SQLite keeps the
    lock on the database until that statement's cursor is garbage-collected.
    """

    def close(self) -> None:
        """Rolls back and closes."""
        with suppress(sqlite3.Error):
            self.rollback()
        super().close()


class _DriverConnection(aiosqlite.Connection):
    """A connection that is closed once, however often its task is cancelled.

    Each further `close` would wait for a thread that has ended: aiosqlite 0.22 leaves such a task waiting forever.
    """

    async def close(self) -> None:
        """Closes the connection, unless that has begun."""
        if self._running:
            await super().close()

    def stop(self) -> "asyncio.Future[Any] | None":
        """Closes the connection and ends its thread, unless that has begun."""
        return super().stop() if self._running else None


def _driver_connection(*arguments: Any, **options: Any) -> _DriverConnection:
    connection = _DriverConnection(partial(sqlite3.connect, *arguments, **options), iter_chunk_size=64)
    connection._thread.daemon = True
    return connection


def _configure(connection: Any, _: Any) -> None:
    """Sets up a connection. With a write-ahead log readers do not wait, and a killed process leaves a valid file."""
    # SQLite's own `lower` handles only A to Z: a search would distinguish the case of Cyrillic letters
    connection.create_function("lower", 1, _lower, deterministic=True)
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    cursor.execute("PRAGMA foreign_keys = ON")
    try:
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
    except Exception as e:  # the driver's own types; a read-only file can still be read
        if "readonly" not in str(e) and "locked" not in str(e):
            raise
    cursor.close()


def _lower(text: Any) -> Any:
    return text.lower() if isinstance(text, str) else text


_CAUSES = {
    "locked": "the database is locked by another program",
    "readonly": "the database cannot be written (read-only)",
    "read-only": "the database cannot be written (read-only)",
    "full": "the disk is full",
    "no space left": "the disk is full",
    "unable to open": "the database file cannot be opened",
    "malformed": "the database file is damaged",
    "not a database": "the database file is damaged",
    "password authentication": "the database server refused the user or the password",
    "connection": "the database server cannot be reached",
    "could not translate host": "the database server cannot be reached",
    "failed to resolve host": "the database server cannot be reached",
}


class _explained:
    """Maps exceptions of the database or its driver to a ChatError; `done` is the action that failed."""

    def __init__(self, done: str) -> None:
        self._done = done

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SQLAlchemyError | OSError):
            text = str(error).lower()
            cause = next((cause for words, cause in _CAUSES.items() if words in text), "the database failed")
            message = f"This could not be {self._done}: {cause}. Tell the operator."
            raise ChatError("internal", message, retryable=True) from error
