"""The library: the documents that visitors have uploaded, and the project's own guide, searched by their words.

SQLite's own full-text index, ranked by bm25, in a file of its own. A visitor finds their own documents and the guide.
"""

import asyncio
import hashlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from agent.tools import passages
from agent.tools.passages import Document, Passage
from agent.tools.reading import name_and_kind, read_file, text_rows
from runs.errors import ChatError

logger = logging.getLogger(__name__)

T = TypeVar("T")
_BUSY_S = 2.5
_MOVING_S = 5.0
"""How long a start waits until the documents of an earlier version are indexed anew; the rest follows meanwhile."""
_PDFS = 2
"""How many PDFs are read at once."""

_FAILED = "The documents cannot be used at the moment. Try again; if it happens again, tell whoever runs this app."
_NO_SEARCH = "This server's SQLite has no full-text search (FTS5). Tell whoever runs this app."
_USED = "INSERT INTO uses VALUES (?, ?) ON CONFLICT (owner) DO UPDATE SET at = excluded.at"
_UNTOLD = "INSERT OR IGNORE INTO uses SELECT DISTINCT owner, ? FROM documents WHERE owner IS NOT NULL"
"""Owners from before uses were noted count from now on."""
_IDLE = "owner IN (SELECT owner FROM uses WHERE at < ?)"
_TOTAL = "SELECT coalesce(sum(characters), 0) FROM documents WHERE owner IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes of a file, pages of a PDF, characters of a document's text, documents of an owner, characters in all."""

    file_bytes: int = 5_000_000
    pages: int = 500
    characters: int = 2_000_000
    documents: int = 20
    total_characters: int = 200_000_000
    """Of all owners' documents; the guide is not counted."""


class Library:
    """Safe on any loop and from many tasks. What the database refuses is a ChatError `internal`."""

    def __init__(self, path: Path, guide: Path | None = None, limits: Limits = Limits()) -> None:
        self._path, self._guide, self.limits = path, guide, limits
        self._db: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        self._pdfs = asyncio.Semaphore(_PDFS)
        self._moving: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Makes the tables, and indexes the guide anew if it has changed, and what an earlier version had indexed.

        A database that cannot be used does not stop the start: each use tries again, and says so.
        """
        with suppress(ChatError):  # has been logged
            if await self._use(passages.has_earlier):
                self._moving = asyncio.create_task(self._move())
                await asyncio.wait({self._moving}, timeout=_MOVING_S)

    async def close(self) -> None:
        if self._moving:
            self._moving.cancel()
            await asyncio.wait({self._moving})
        await asyncio.to_thread(self._close)

    async def add(self, owner: str, name: str, data: bytes) -> Document:
        """Takes a file in; an earlier one of the same name gives way.

        Raises ChatError for what cannot be searched, and for what there is no room for; the earlier one then stays.
        """
        limits = self.limits
        name, kind = name_and_kind(name)
        if len(data) > limits.file_bytes:
            raise ChatError("too_large", f"{name!r} is too large: at most {limits.file_bytes / 1e6:g} MB.")
        async with self._pdfs if kind == "pdf" else nullcontext():
            reading = await asyncio.to_thread(read_file, name, kind, data, limits.pages, limits.characters)
        rows, digest = await asyncio.to_thread(passages.indexed, reading.rows), hashlib.sha256(data).hexdigest()

        def insert(db: sqlite3.Connection) -> Document:
            others = "SELECT count(*) FROM documents WHERE owner = ? AND name != ?"
            if db.execute(others, (owner, name)).fetchone()[0] >= limits.documents:
                most = f"at most {limits.documents} documents are kept for you"
                raise ChatError("invalid_request", f"{name!r} was not added: {most}. Remove one first.")
            passages.delete(db, "owner = ? AND name = ?", (owner, name))
            if db.execute(_TOTAL).fetchone()[0] + passages.characters_of(rows) > limits.total_characters:
                full = "this server's library is full"
                raise ChatError("too_large", f"{name!r} was not added: {full}. Tell whoever runs this app.")
            db.execute(_USED, (owner, time.time()))
            return passages.insert(db, owner, name, digest, rows, reading.encoding)

        return await self._use(insert)

    async def documents(self, owner: str | None) -> list[Document]:
        """The owner's documents, the oldest first; of None, the guide."""
        wanted = "SELECT id, name, size, characters, encoding FROM documents WHERE owner IS ? ORDER BY rowid"
        return await self._use(lambda db: [Document(*row) for row in db.execute(wanted, (owner,))])

    async def remove(self, owner: str, document_id: str) -> None:
        """Raises ChatError `not_found` for what is not the owner's."""
        if not await self._use(lambda db: passages.delete(db, "owner = ? AND id = ?", (owner, document_id))):
            raise ChatError("not_found", "There is no such document, or it is not yours.")

    async def search(self, owner: str | None, text: str, most: int = 5) -> list[Passage]:
        """The passages that have any of the words, the best first. The last word may be the beginning of one.

        In scripts without blanks, where what is between two blanks may be a sentence, also those that have parts of it.
        """
        queries = passages.queries_of(text)
        if not queries:
            return []

        def find(db: sqlite3.Connection) -> list[Passage]:
            db.execute("UPDATE uses SET at = ? WHERE owner = ?", (time.time(), owner))
            return passages.search(db, queries, owner, most)

        return await self._use(find)

    async def _move(self) -> None:
        """Indexes anew what an earlier version had indexed, a little at a time."""
        with suppress(ChatError):  # has been logged; the next start goes on with it
            while await self._use(passages.move_some):
                pass

    async def forget_idle(self, before: float) -> None:
        """Removes the documents of owners who have not used theirs since then, in epoch seconds."""

        def forget(db: sqlite3.Connection) -> None:
            db.execute(_UNTOLD, (time.time(),))
            passages.delete(db, _IDLE, (before,))
            db.execute("DELETE FROM uses WHERE owner NOT IN (SELECT owner FROM documents WHERE owner IS NOT NULL)")

        await self._use(forget)

    async def _use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Does the work in a thread, within one transaction."""
        return await asyncio.to_thread(self._locked, work)

    def _locked(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._lock:
                if self._db is None:
                    self._db = self._connect()
                with self._db:
                    self._db.execute("BEGIN")
                    return work(self._db)
        except (sqlite3.Error, OSError) as e:
            logger.warning("the library: %s", e)
            sentence = _NO_SEARCH if "no such module" in str(e) else _FAILED
            raise ChatError("internal", sentence, retryable=True) from e

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._path, timeout=_BUSY_S, check_same_thread=False)
        try:
            db.executescript(passages.TABLES)
            with db:
                db.execute("BEGIN IMMEDIATE")
                if "encoding" not in {column[1] for column in db.execute("PRAGMA table_info(documents)")}:
                    db.execute("ALTER TABLE documents ADD COLUMN encoding TEXT")
                self._index_guide(db)
        except BaseException:
            db.close()
            raise
        return db

    def _index_guide(self, db: sqlite3.Connection) -> None:
        try:
            data = self._guide.read_bytes() if self._guide else b""
        except OSError as e:
            logger.warning("the guide cannot be read: %s", e)
            return
        digest = hashlib.sha256(data).hexdigest()
        known = db.execute("SELECT digest FROM documents WHERE owner IS NULL").fetchone()
        if self._guide and known != (digest,):
            text = data.decode("utf-8", "replace")
            passages.delete(db, "owner IS NULL", ())
            passages.insert(db, None, self._guide.name, digest, passages.indexed(list(text_rows("md", [text]))))

    def _close(self) -> None:
        with self._lock:
            if self._db:
                self._db.close()
            self._db = None
