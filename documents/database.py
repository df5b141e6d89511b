"""The library's database: one connection that writes, and one of its own for each reader.

It is in SQLite's WAL mode (https://www.sqlite.org/wal.html), so that readers wait neither for each other nor for a
writer. Its threads are its own: a slow search holds up nothing but searches.
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
"""How many read at once, and the longest that one may read, in seconds."""
_STEPS = 10_000
"""Instructions of SQLite's virtual machine between two looks at the clock."""

_FAILED = "The documents cannot be used at the moment. Try again; if it happens again, tell whoever runs this app."
_NO_SEARCH = "This server's SQLite has no full-text search (FTS5). Tell whoever runs this app."
_TOO_WIDE = "This search takes too long: search for fewer or rarer words, or remove documents that you do not need."


class Database:
    """Safe on any loop and from many tasks. What the database refuses is a ChatError `internal`."""

    def __init__(self, path: Path, prepare: Work[None]) -> None:
        """`prepare` makes the tables of a database that is used for the first time."""
        self._path, self._prepare = path, prepare
        self._db: sqlite3.Connection | None = None
        self._writer = Threads("library writes", 1)
        self._readers = Threads("library reads", _READERS)

    async def write(self, work: Work[T]) -> T:
        """Does the work within a transaction, after all that was to be written before."""
        return await self._writer.run(self._written, work)

    async def read(self, work: Work[T]) -> T:
        """Does the work on what is in the database now. Raises ChatError `timeout` if it takes too long."""
        if self._db is None:
            await self.write(lambda db: None)
        return await self._readers.run(self._read, work)

    async def close(self) -> None:
        """Waits for what is being written. A later use opens the database again."""
        await self._writer.run(self._close)

    def _written(self, work: Work[T]) -> T:
        with _told():
            if self._db is None:
                self._db = self._connect()
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                return work(self._db)

    def _read(self, work: Work[T]) -> T:
        until = time.monotonic() + _READ_S
        with _told(), closing(sqlite3.connect(self._path, timeout=_BUSY_S)) as db:
            db.execute("PRAGMA query_only = 1")
            db.execute("BEGIN")
            db.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
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
def _told() -> Iterator[None]:
    """Turns database errors into ChatError."""
    try:
        yield
    except (sqlite3.Error, OSError) as e:
        if getattr(e, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise ChatError("timeout", _TOO_WIDE) from None
        logger.warning("the library: %s", e)
        sentence = _NO_SEARCH if "no such module" in str(e) else _FAILED
        raise ChatError("internal", sentence, retryable=True) from e
