"""The library: the documents that visitors have uploaded, and the project's own guide, searched by their words.

SQLite's own full-text index, in a file of its own. A visitor finds their own documents and the guide.
"""

import asyncio
import hashlib
import hmac
import logging
import sqlite3
import subprocess
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from documents import index
from documents.database import Database, T, Work
from documents.index import Document, Passage
from documents.parsing import name_and_kind, parse_file, text_rows
from runs.errors import ChatError
from runs.threads import Threads
from settings import LimitSettings

logger = logging.getLogger(__name__)

_MOVING_S = 5.0
"""How long a start waits until the documents of an earlier version are indexed anew; the rest follows meanwhile."""
_PDFS, _FILES = 2, 4
"""How many PDFs are read at once, and how many files of any kind."""
_NOTED = 1000
"""Owners whose last use is in memory only."""
_USED = "INSERT INTO uses VALUES (?, ?) ON CONFLICT (owner) DO UPDATE SET at = excluded.at"
_UNTOLD = "INSERT OR IGNORE INTO uses SELECT DISTINCT owner, ? FROM documents WHERE owner IS NOT NULL"
"""Owners from before uses were noted count from now on."""
_IDLE = "owner IN (SELECT owner FROM uses WHERE at < ?)"
_SUM = "SELECT count(*), coalesce(sum(characters), 0) FROM documents WHERE"


@dataclass(frozen=True, slots=True)
class DocumentLimits:
    """Bytes of a file, pages of a PDF, characters of a document's text, documents of an owner, characters in all.

    Where 0 is the default it stands for no limit.
    """

    file_bytes: int = 5_000_000
    pages: int = 500
    characters: int = 2_000_000
    documents: int = 20
    total_characters: int = 200_000_000
    """Of all owners' documents; the guide is not counted."""
    owner_characters: int = 0
    """Of all documents of an owner."""
    address_documents: int = 0
    address_characters: int = 0
    """Of all documents that were added from one address, whosever they are."""

    @classmethod
    def of(cls, settings: LimitSettings) -> "DocumentLimits":
        """As the settings say."""
        own, shared = settings.document_characters_per_visitor or 0, settings.visitors_per_address
        return cls(
            file_bytes=settings.document_bytes,
            owner_characters=own,
            address_documents=cls().documents * shared if own else 0,
            address_characters=own * shared,
        )


class Library:
    """Safe on any loop and from many tasks. What the database refuses is a ChatError `internal`."""

    def __init__(
        self, path: Path, guide: Path | None = None, limits: DocumentLimits = DocumentLimits(), salt: bytes = b""
    ) -> None:
        """Addresses are kept as hashes with the `salt`: they are counted, and cannot be read."""
        self._guide, self.limits, self._salt = guide, limits, salt
        self._index = Database(path, self._prepare)
        self._files = Threads("documents", _FILES)
        self._pdfs = asyncio.Semaphore(_PDFS)
        self._children = set["subprocess.Popen[bytes]"]()
        """The processes that read a PDF now."""
        self._used: dict[str, float] = {}
        """Uses that are not in the database yet, in epoch seconds by owner."""
        self._moving: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Makes the tables, and indexes the guide anew if it has changed, and what an earlier version had indexed.

        A database that cannot be used does not stop the start: each use tries again, and says so.
        """
        with suppress(ChatError):  # has been logged
            if await self._write(index.has_earlier):
                self._moving = asyncio.create_task(self._move())
                await asyncio.wait({self._moving}, timeout=_MOVING_S)

    async def close(self) -> None:
        if self._moving:
            self._moving.cancel()
            await asyncio.wait({self._moving})
        for child in list(self._children):
            child.kill()
        if self._used:
            with suppress(ChatError):  # has been logged
                await self._write(lambda db: None)
        await self._index.close()

    async def add(self, owner: str, name: str, data: bytes, address: str | None = None) -> Document:
        """Takes a file in that comes from an address; an earlier one of the same name gives way.

        Raises ChatError for what cannot be searched, and for what there is no room for; the earlier one then stays.
        """
        limits = self.limits
        name, kind = name_and_kind(name)
        if len(data) > limits.file_bytes:
            raise ChatError("too_large", f"{name!r} is too large: at most {limits.file_bytes / 1e6:g} MB.")
        async with self._pdfs if kind == "pdf" else nullcontext():
            reading = await self._files.run(
                parse_file, name, kind, data, limits.pages, limits.characters, self._children
            )
        rows = await self._files.run(index.indexed, reading.rows)
        digest, origin = hashlib.sha256(data).hexdigest(), self._origin(address)

        def insert(db: sqlite3.Connection) -> Document:
            others = "SELECT count(*) FROM documents WHERE owner = ? AND name != ?"
            if db.execute(others, (owner, name)).fetchone()[0] >= limits.documents:
                most = f"at most {limits.documents} documents are kept for you"
                raise ChatError("invalid_request", f"{name!r} was not added: {most}. Remove one first.")
            index.delete(db, "owner = ? AND name = ?", (owner, name))
            if reason := self._no_room(db, owner, origin, index.characters_of(rows)):
                raise ChatError("too_large", f"{name!r} was not added: {reason}.")
            db.execute(_USED, (owner, time.time()))
            return index.insert(db, owner, name, digest, rows, reading.encoding, origin)

        return await self._write(insert)

    def _no_room(self, db: sqlite3.Connection, owner: str, origin: str | None, size: int) -> str | None:
        """Why so many characters more cannot be kept."""
        limits = self.limits
        _, own = db.execute(f"{_SUM} owner = ?", (owner,)).fetchone()
        if limits.owner_characters and own + size > limits.owner_characters:
            most = f"your documents may have {limits.owner_characters:,} characters of text together"
            return f"{most}, and with this one they have {own + size:,}. Remove one first"
        documents, near = db.execute(f"{_SUM} origin = ?", (origin,)).fetchone()
        full = limits.address_documents and documents >= limits.address_documents
        if full or (limits.address_characters and near + size > limits.address_characters):
            return "no more documents are kept from your address. Remove some that were added from it first"
        _, total = db.execute(f"{_SUM} owner IS NOT NULL").fetchone()
        if total + size > limits.total_characters:
            return "this server's library is full. Tell whoever runs this app"
        return None

    def _origin(self, address: str | None) -> str | None:
        return hmac.new(self._salt, address.encode(), "sha256").hexdigest()[:32] if address else None

    async def documents(self, owner: str | None) -> list[Document]:
        """The owner's documents, the oldest first; of None, the guide."""
        wanted = "SELECT id, name, size, characters, encoding FROM documents WHERE owner IS ? ORDER BY rowid"
        return await self._index.read(lambda db: [Document(*row) for row in db.execute(wanted, (owner,))])

    async def remove(self, owner: str, document_id: str) -> None:
        """Raises ChatError `not_found` for what is not the owner's."""
        if not await self._write(lambda db: index.delete(db, "owner = ? AND id = ?", (owner, document_id))):
            raise ChatError("not_found", "There is no such document, or it is not yours.")

    async def search(self, owner: str | None, text: str, most: int = 5) -> list[Passage]:
        """The passages that have any of the words, the best first. The last word may be the beginning of one.

        In scripts without blanks, where what is between two blanks may be a sentence, also those that have parts of it.
        """
        queries = index.queries_of(text)
        if not queries:
            return []

        found = await self._index.read(lambda db: index.search(db, queries, owner, most))
        if owner:
            self._used[owner] = time.time()
        if len(self._used) > _NOTED:
            with suppress(ChatError):  # has been logged; the search itself succeeded
                await self._write(lambda db: None)
        return found

    async def _move(self) -> None:
        """Indexes anew what an earlier version had indexed, a little at a time."""
        with suppress(ChatError):  # has been logged; the next start goes on with it
            while await self._write(index.move_some):
                pass

    async def forget_idle(self, before: float) -> None:
        """Removes the documents of owners who have not used theirs since then, in epoch seconds."""

        def forget(db: sqlite3.Connection) -> None:
            db.execute(_UNTOLD, (time.time(),))
            index.delete(db, _IDLE, (before,))
            db.execute("DELETE FROM uses WHERE owner NOT IN (SELECT owner FROM documents WHERE owner IS NOT NULL)")

        await self._write(forget)

    async def _write(self, work: Work[T]) -> T:
        """Does the work, and notes the uses meanwhile, within one transaction.

        Where that fails, the latest `_NOTED` uses wait for the next write.
        """
        used, self._used = self._used, {}

        def write(db: sqlite3.Connection) -> T:
            db.executemany("UPDATE uses SET at = max(at, ?) WHERE owner = ?", [(at, who) for who, at in used.items()])
            return work(db)

        try:
            return await self._index.write(write)
        except BaseException:
            waiting = sorted((used | self._used).items(), key=lambda use: use[1])
            self._used = dict(waiting[-_NOTED:])
            raise

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.executescript(index.TABLES)
        with db:
            db.execute("BEGIN IMMEDIATE")
            there = {column[1] for column in db.execute("PRAGMA table_info(documents)")}
            for column in {"encoding", "origin"} - there:
                db.execute(f"ALTER TABLE documents ADD COLUMN {column} TEXT")
            db.execute("CREATE INDEX IF NOT EXISTS documents_origin ON documents (origin)")
            self._index_guide(db)

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
            index.delete(db, "owner IS NULL", ())
            index.insert(db, None, self._guide.name, digest, index.indexed(list(text_rows("md", [text]))))
