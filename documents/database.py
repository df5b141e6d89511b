"""The SQLite database of the documents: one connection for writes, and one for each read.

In WAL mode (https://www.sqlite.org/wal.html) a read waits neither for a write nor for another read. The database has
its own threads, so that a slow search delays only other searches.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from runs.errors import ChatError
from runs.threads import Threads

logger = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
_BUSY_S = 2.5
_READERS, _READ_S = 4, 2.0
"""Concurrent reads, and the read timeout in seconds."""
_STEPS = 10_000
"""Instructions of SQLite's virtual machine between two checks of the timeout."""

_FAILED = "Your documents are not available right now. Try again; if it happens again, tell the operator of this app."
_NO_SEARCH = "This server's SQLite has no full-text search (FTS5). Tell the operator of this app."
_TIMEOUT = "This search takes too long: search for fewer or rarer words, or remove documents that you do not need."


class Database:
    """A SQLite file that any event loop and task may use. Database errors are raised as ChatError `internal`."""

    def __init__(self, path: Path, prepare: Work[None]) -> None:
        """`prepare` creates the tables when the connection for writes is opened."""
        self._path, self._prepare = path, prepare
        self._db: sqlite3.Connection | None = None
        self._writer = Threads("library writes", 1)
        self._readers = Threads("library reads", _READERS)

    async def write(self, work: Work[T]) -> T:
        """Runs `work` in a transaction, after all earlier writes."""
        return await self._writer.run(self._run_write, work)

    async def read(self, work: Work[T]) -> T:
        """Runs `work` on the current state of the database. Raises ChatError `timeout`."""
        if self._db is None:
            await self.write(lambda db: None)
        return await self._readers.run(self._run_read, work)

    async def close(self) -> None:
        """Closes the connection for writes after the last write. A later use opens it again."""
        await self._writer.run(self._close)

    def _run_write(self, work: Work[T]) -> T:
        with _chat_errors():
            if self._db is None:
                self._db = self._connect()
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                return work(self._db)

    def _run_read(self, work: Work[T]) -> T:
        deadline = time.monotonic() + _READ_S
        with _chat_errors(), closing(sqlite3.connect(self._path, timeout=_BUSY_S)) as db:
            db.execute("PRAGMA query_only = 1")
            db.execute("BEGIN")
            db.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
            return work(db)

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._path, timeout=_BUSY_S, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _close(self) -> None:
        if self._db:
            self._db.close()
        self._db = None


@contextmanager
def _chat_errors() -> Iterator[None]:
    """Turns database errors into ChatError."""
    try:
        yield
    except (sqlite3.Error, OSError) as e:
        if getattr(e, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise ChatError("timeout", _TIMEOUT) from None
        logger.warning("documents database: %s", e)
        raise ChatError("internal", _NO_SEARCH if "no such module" in str(e) else _FAILED, retryable=True) from e
