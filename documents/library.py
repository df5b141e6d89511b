"""The library: the documents that visitors have uploaded, and the project's own guide, with full-text search.

It has a SQLite database of its own. A visitor finds their own documents and the guide.
"""

import asyncio
import hashlib
import hmac
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from documents import index
from documents.database import Database, T, Work
from documents.index import Document, Passage
from documents.parsing import name_and_kind, parse_pages, parse_text, split_passages
from documents.pdf_reader import PdfReader
from documents.rank_fusion import fuse
from runs.errors import ChatError
from runs.threads import Threads
from settings import LimitSettings

if TYPE_CHECKING:
    from documents.vectors import PassageVectors

logger = logging.getLogger(__name__)

_ROOT = Path(__file__).parent.parent
GUIDE = [_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))]
"""The project's own guide."""
_MIGRATION_S = 5.0
"""The time that a start waits for the migration of legacy passages, in seconds; the rest runs in the background."""
_FILES = 4
"""Concurrent parses of files."""
_PENDING_USES = 1000
"""Owners whose last use is not in the database yet."""
_USED = "INSERT INTO uses VALUES (?, ?) ON CONFLICT (owner) DO UPDATE SET at = excluded.at"
_ADD_MISSING_USES = "INSERT OR IGNORE INTO uses SELECT DISTINCT owner, ? FROM documents WHERE owner IS NOT NULL"
"""Earlier versions stored no uses; those owners count from now on."""
_ADDED = {"encoding": "TEXT", "origin": "TEXT", "embedded": "INTEGER NOT NULL DEFAULT 0"}
"""Columns of documents that earlier versions did not have."""
_IDLE = "owner IN (SELECT owner FROM uses WHERE at < ?)"
_WEAK = 0.3
"""The least score of a passage that is found for a message, as a share of the best one's."""
_RANKED = 20
"""Passages that each of the two searches, by words and by vectors, ranks."""
_SUM = "SELECT count(*), coalesce(sum(characters), 0) FROM documents WHERE"


@dataclass(frozen=True, slots=True)
class DocumentLimits:
    """Limits of the library. For those whose default is 0, 0 means no limit."""

    file_bytes: int = 5_000_000
    pages: int = 500
    """Pages of a PDF."""
    characters: int = 2_000_000
    """Characters of one document."""
    documents: int = 20
    """Documents of one owner."""
    total_characters: int = 200_000_000
    """Characters of all owners' documents together, without the guide."""
    owner_characters: int = 0
    """Characters of all documents of one owner."""
    address_documents: int = 0
    """Documents uploaded from one address, of all owners."""
    address_characters: int = 0
    """Characters of all documents uploaded from one address."""

    @classmethod
    def from_settings(cls, settings: LimitSettings) -> "DocumentLimits":
        """Takes the limits that can be configured from the settings."""
        own, shared = settings.document_characters_per_visitor or 0, settings.visitors_per_address
        return cls(
            file_bytes=settings.document_bytes,
            owner_characters=own,
            address_documents=cls().documents * shared if own else 0,
            address_characters=own * shared,
        )


class Library:
    """The documents of all owners. Any event loop and task may use it; database errors are ChatError `internal`."""

    def __init__(
        self,
        path: Path,
        guide: Sequence[Path] = (),
        limits: DocumentLimits = DocumentLimits(),
        salt: bytes = b"",
        vectors: Callable[[Database], "PassageVectors"] | None = None,
    ) -> None:
        """`guide` has Markdown files. Addresses are stored as hashes with `salt`: they can be counted, not read.

        `vectors` makes the vector store by which visitors' documents are searched besides their words.
        """
        self._guide, self.limits, self._salt = guide, limits, salt
        self._database = Database(path, self._prepare)
        self._vectors = vectors(self._database) if vectors else None
        self._files = Threads("documents", _FILES)
        self._pdfs = PdfReader()
        self._uses: dict[str, float] = {}
        """The last use of each owner, in epoch seconds, that is not in the database yet."""
        self._migration: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Creates the tables, indexes the guide if it has changed, and migrates the index of an earlier version.

        A broken database does not stop the start: each use tries again, and reports the error.
        """
        with suppress(ChatError):  # has been logged
            if await self._write(index.has_legacy_passages):
                self._migration = asyncio.create_task(self._migrate())
                await asyncio.wait({self._migration}, timeout=_MIGRATION_S)
        if self._vectors:
            self._vectors.open()

    async def close(self) -> None:
        """Stores pending uses, ends the processes that read PDFs, and closes the database."""
        if self._migration:
            self._migration.cancel()
            await asyncio.wait({self._migration})
        if self._vectors:
            await self._vectors.close()
        self._pdfs.close()
        if self._uses:
            with suppress(ChatError):  # has been logged
                await self._write(lambda db: None)
        await self._database.close()

    async def add(self, owner: str, name: str, data: bytes, address: str | None = None) -> Document:
        """Adds a file that was uploaded from an address; it replaces the owner's document of the same name.

        Raises ChatError for a file that cannot be parsed or exceeds a limit; the earlier document then stays.
        """
        limits = self.limits
        name, kind = name_and_kind(name)
        if len(data) > limits.file_bytes:
            raise ChatError("too_large", f"{name!r} is too large: at most {limits.file_bytes / 1e6:g} MB.")
        if kind == "pdf":
            pages = await self._pdfs.read(name, data, limits.pages, limits.characters, address or owner)
            parsed = await self._files.run(parse_pages, name, pages, limits.characters)
        else:
            parsed = await self._files.run(parse_text, name, kind, data, limits.characters)
        passages = await self._files.run(index.index_passages, parsed.passages)
        digest, origin = hashlib.sha256(data).hexdigest(), self._origin(address)

        def insert(db: sqlite3.Connection) -> Document:
            others = "SELECT count(*) FROM documents WHERE owner = ? AND name != ?"
            if db.execute(others, (owner, name)).fetchone()[0] >= limits.documents:
                most = f"you can have at most {limits.documents} documents"
                raise ChatError("invalid_request", f"{name!r} was not added: {most}. Remove one first.")
            index.delete(db, "owner = ? AND name = ?", (owner, name))
            if reason := self._exceeded_limit(db, owner, origin, index.count_characters(passages)):
                raise ChatError("too_large", f"{name!r} was not added: {reason}.")
            db.execute(_USED, (owner, time.time()))
            return index.insert(db, owner, name, digest, passages, parsed.encoding, origin)

        document = await self._write(insert)
        if self._vectors:
            self._vectors.wake()
        return document

    def _exceeded_limit(self, db: sqlite3.Connection, owner: str, origin: str | None, size: int) -> str | None:
        """Explains which limit `size` more characters would exceed; None if they are within all limits."""
        limits = self.limits
        _, own = db.execute(f"{_SUM} owner = ?", (owner,)).fetchone()
        if limits.owner_characters and own + size > limits.owner_characters:
            most = f"your documents can have {limits.owner_characters:,} characters of text together"
            return f"{most}, and with this one they would have {own + size:,}. Remove one first"
        documents, near = db.execute(f"{_SUM} origin = ?", (origin,)).fetchone()
        full = limits.address_documents and documents >= limits.address_documents
        if full or (limits.address_characters and near + size > limits.address_characters):
            return "the limit for your address is reached. First remove documents that were added from it"
        _, total = db.execute(f"{_SUM} owner IS NOT NULL").fetchone()
        if total + size > limits.total_characters:
            return "this server's library is full. Tell the operator of this app"
        return None

    def _origin(self, address: str | None) -> str | None:
        return hmac.new(self._salt, address.encode(), "sha256").hexdigest()[:32] if address else None

    async def documents(self, owner: str | None) -> list[Document]:
        """Returns the owner's documents, oldest first; the guide for None."""
        query = "SELECT id, name, size, characters, encoding FROM documents WHERE owner IS ? ORDER BY rowid"
        return await self._database.read(lambda db: [Document(*row) for row in db.execute(query, (owner,))])

    async def remove(self, owner: str, document_id: str) -> None:
        """Removes a document of the owner. Raises ChatError `not_found`."""
        if not await self._write(lambda db: index.delete(db, "owner = ? AND id = ?", (owner, document_id))):
            raise ChatError("not_found", "There is no such document, or it is not yours.")

    async def search(self, owner: str | None, text: str, most: int = 5) -> list[Passage]:
        """Returns the passages that contain any of the words, best first. The last word may be a prefix.

        In scripts without blanks, where the text between two blanks may be a sentence, its parts are searched as well.
        With vectors, passages of the owner's documents that are similar to the text are found, too.
        """
        queries = index.build_queries(text)
        if not queries:
            return []
        ranked = max(most, _RANKED)
        found = await self._database.read(lambda db: index.search(db, queries, owner, ranked))
        if owner:
            await self._note_use(owner)
        return await self._with_similar(owner, text, found, most)

    async def find(self, owner: str, message: str, most: int) -> list[Passage]:
        """Returns the passages of the owner's own documents that match a message best, without its stop words."""
        queries, ranked = index.build_queries(index.specific_words(message)), max(most, _RANKED)
        if not queries:
            return []
        found = await self._database.read(lambda db: index.search(db, queries, owner, ranked, guide=False))
        strong = [passage for passage in found if passage.score >= _WEAK * found[0].score]
        if best := await self._with_similar(owner, message, strong, most):
            await self._note_use(owner)
        return best

    async def _with_similar(self, owner: str | None, text: str, found: list[Passage], most: int) -> list[Passage]:
        """Returns the best of what was found by words and of what is found by vectors, by reciprocal rank fusion."""
        similar = list[Passage]()
        if self._vectors and owner:
            with suppress(ChatError):  # has been logged
                near = await self._vectors.asimilarity_search_with_score(text, _RANKED, owner=owner)
                similar = [Passage(**one.metadata, text=one.page_content, score=score) for one, score in near]
        return fuse([found, similar], most) if similar else found[:most]

    async def _note_use(self, owner: str) -> None:
        self._uses[owner] = time.time()
        if len(self._uses) > _PENDING_USES:
            with suppress(ChatError):  # has been logged; the search itself succeeded
                await self._write(lambda db: None)

    async def _migrate(self) -> None:
        """Migrates the index of an earlier version, some passages at a time."""
        with suppress(ChatError):  # has been logged; the next start continues
            while await self._write(index.migrate_legacy_passages):
                pass
            if self._vectors:
                self._vectors.wake()

    async def forget_idle(self, before: float) -> None:
        """Removes the documents of owners who have not used them since `before`, in epoch seconds."""

        def forget(db: sqlite3.Connection) -> None:
            db.execute(_ADD_MISSING_USES, (time.time(),))
            index.delete(db, _IDLE, (before,))
            db.execute("DELETE FROM uses WHERE owner NOT IN (SELECT owner FROM documents WHERE owner IS NOT NULL)")

        await self._write(forget)

    async def _write(self, work: Work[T]) -> T:
        """Runs `work` and stores the pending uses in one transaction.

        If it fails, the latest `_PENDING_USES` uses wait for the next write.
        """
        uses, self._uses = self._uses, {}

        def write(db: sqlite3.Connection) -> T:
            db.executemany("UPDATE uses SET at = max(at, ?) WHERE owner = ?", [(at, who) for who, at in uses.items()])
            return work(db)

        try:
            return await self._database.write(write)
        except BaseException:
            waiting = sorted((uses | self._uses).items(), key=lambda use: use[1])
            self._uses = dict(waiting[-_PENDING_USES:])
            raise

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.executescript(index.TABLES)
        with db:
            db.execute("BEGIN IMMEDIATE")
            existing = {column[1] for column in db.execute("PRAGMA table_info(documents)")}
            for column in _ADDED.keys() - existing:
                db.execute(f"ALTER TABLE documents ADD COLUMN {column} {_ADDED[column]}")
            db.execute("CREATE INDEX IF NOT EXISTS documents_origin ON documents (origin)")
            self._index_guide(db)

    def _index_guide(self, db: sqlite3.Connection) -> None:
        try:
            files = [(path.name, path.read_bytes()) for path in self._guide]
        except OSError as e:
            logger.warning("the guide cannot be read: %s", e)
            return
        digest = hashlib.sha256(repr(files).encode()).hexdigest()
        indexed = {row[0] for row in db.execute("SELECT digest FROM documents WHERE owner IS NULL")}
        if files and indexed != {digest}:
            index.delete(db, "owner IS NULL", ())
            for name, data in files:
                passages = list(split_passages("md", [data.decode("utf-8", "replace")]))
                index.insert(db, None, name, digest, index.index_passages(passages))
