"""The library: the documents that visitors have uploaded, and the project's own guide, searched by their words.

SQLite's own full-text index, ranked by bm25, in a file of its own. A visitor finds their own documents and the guide.
"""

import asyncio
import hashlib
import logging
import re
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from agent.tools.reading import Row, name_and_kind, read_rows, text_rows
from runs.errors import ChatError
from runs.live import new_id

logger = logging.getLogger(__name__)

T = TypeVar("T")
_WORDS, _QUERY = 32, 2000
"""Words and characters of a query that count."""
_BUSY_S = 2.5
_PDFS = 2
"""How many PDFs are read at once."""

_FAILED = "The documents cannot be used at the moment. Try again; if it happens again, tell whoever runs this app."
_NO_SEARCH = "This server's SQLite has no full-text search (FTS5). Tell whoever runs this app."
_TABLES = """
CREATE TABLE IF NOT EXISTS documents (
    id TEXT PRIMARY KEY, owner TEXT, name TEXT NOT NULL, digest TEXT NOT NULL,
    first INTEGER NOT NULL, size INTEGER NOT NULL, characters INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS uses (owner TEXT PRIMARY KEY, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS documents_owner ON documents (owner, name);
CREATE VIRTUAL TABLE IF NOT EXISTS passages USING fts5(
    text, heading, place UNINDEXED, document UNINDEXED, tokenize = 'porter unicode61 remove_diacritics 2'
);
"""
_SEARCH = """
SELECT documents.name, passages.place, passages.text, -bm25(passages, 1.0, 2.0) AS score
FROM passages JOIN documents ON documents.id = passages.document
WHERE passages MATCH ? AND (documents.owner IS NULL OR documents.owner = ?) ORDER BY score DESC LIMIT ?
"""
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


@dataclass(frozen=True, slots=True)
class Document:
    id: str
    name: str
    passages: int
    characters: int


@dataclass(frozen=True, slots=True)
class Passage:
    document: str
    """The document's name."""
    place: str
    """`page N` of a PDF, else the nearest heading, else `section N`."""
    text: str
    score: float
    """The better the higher; comparable within one search."""


class Library:
    """Safe on any loop and from many tasks. What the database refuses is a ChatError `internal`."""

    def __init__(self, path: Path, guide: Path | None = None, limits: Limits = Limits()) -> None:
        self._path, self._guide, self.limits = path, guide, limits
        self._db: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        self._pdfs = asyncio.Semaphore(_PDFS)

    async def open(self) -> None:
        """Makes the tables, and indexes the guide anew if it has changed.

        A database that cannot be used does not stop the start: each use tries again, and says so.
        """
        with suppress(ChatError):  # has been logged
            await self._use(lambda db: None)

    async def close(self) -> None:
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
            rows = await asyncio.to_thread(read_rows, name, kind, data, limits.pages, limits.characters)
        digest = hashlib.sha256(data).hexdigest()

        def insert(db: sqlite3.Connection) -> Document:
            others = "SELECT count(*) FROM documents WHERE owner = ? AND name != ?"
            if db.execute(others, (owner, name)).fetchone()[0] >= limits.documents:
                most = f"at most {limits.documents} documents are kept for you"
                raise ChatError("invalid_request", f"{name!r} was not added: {most}. Remove one first.")
            _delete(db, "owner = ? AND name = ?", (owner, name))
            if db.execute(_TOTAL).fetchone()[0] + _characters(rows) > limits.total_characters:
                full = "this server's library is full"
                raise ChatError("too_large", f"{name!r} was not added: {full}. Tell whoever runs this app.")
            db.execute(_USED, (owner, time.time()))
            return _insert(db, owner, name, digest, rows)

        return await self._use(insert)

    async def documents(self, owner: str | None) -> list[Document]:
        """The owner's documents, the oldest first; of None, the guide."""
        wanted = "SELECT id, name, size, characters FROM documents WHERE owner IS ? ORDER BY rowid"
        return await self._use(lambda db: [Document(*row) for row in db.execute(wanted, (owner,))])

    async def remove(self, owner: str, document_id: str) -> None:
        """Raises ChatError `not_found` for what is not the owner's."""
        if not await self._use(lambda db: _delete(db, "owner = ? AND id = ?", (owner, document_id))):
            raise ChatError("not_found", "There is no such document, or it is not yours.")

    async def search(self, owner: str | None, words: str, most: int = 5) -> list[Passage]:
        """The passages that have any of the words, the best first. The last word may be the beginning of one."""
        query = _query(words)
        if not query:
            return []

        def find(db: sqlite3.Connection) -> list[Passage]:
            db.execute("UPDATE uses SET at = ? WHERE owner = ?", (time.time(), owner))
            return [Passage(*row) for row in db.execute(_SEARCH, (query, owner, most))]

        return await self._use(find)

    async def forget_idle(self, before: float) -> None:
        """Removes the documents of owners who have not used theirs since then, in epoch seconds."""

        def forget(db: sqlite3.Connection) -> None:
            db.execute(_UNTOLD, (time.time(),))
            _delete(db, _IDLE, (before,))
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
            db.executescript(_TABLES)
            with db:
                db.execute("BEGIN IMMEDIATE")
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
            _delete(db, "owner IS NULL", ())
            _insert(db, None, self._guide.name, digest, list(text_rows("md", [text])))

    def _close(self) -> None:
        with self._lock:
            if self._db:
                self._db.close()
            self._db = None


def _insert(db: sqlite3.Connection, owner: str | None, name: str, digest: str, rows: list[Row]) -> Document:
    made = Document(new_id(), name, len(rows), _characters(rows))
    last = db.execute("SELECT rowid FROM passages ORDER BY rowid DESC LIMIT 1").fetchone()
    first = last[0] + 1 if last else 1
    values = made.id, owner, name, digest, first, made.passages, made.characters
    db.execute(f"INSERT INTO documents VALUES ({', '.join('?' * len(values))})", values)  # nosec B608 # marks
    passages = [(first + i, *row, made.id) for i, row in enumerate(rows)]
    db.executemany("INSERT INTO passages (rowid, text, heading, place, document) VALUES (?, ?, ?, ?, ?)", passages)
    return made


def _characters(rows: list[Row]) -> int:
    return sum(len(text) for text, _, _ in rows)


def _delete(db: sqlite3.Connection, where: str, values: tuple[Any, ...]) -> bool:
    """Deletes documents with their passages; whether there were any."""
    found = db.execute(f"SELECT id, first, size FROM documents WHERE {where}", values).fetchall()  # nosec B608 # ours
    for document_id, first, size in found:
        db.execute("DELETE FROM passages WHERE rowid BETWEEN ? AND ?", (first, first + size - 1))
        db.execute("DELETE FROM documents WHERE id = ?", (document_id,))
    return bool(found)


def _query(words: str) -> str:
    """The words as FTS5 wants them, each quoted: so none is an operator."""
    found = [f'"{word}"' for word in re.findall(r"\w+", words[:_QUERY])[:_WORDS]]
    return " OR ".join(found) + "*" if found else ""
