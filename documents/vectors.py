"""The vectors of passages: a LangChain vector store in the library's database, filled in the background.

Its tables are in `documents/index.py`. Whatever fails here costs only that passages are found by their words alone.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from heapq import nlargest
from typing import Any, NamedTuple, NoReturn

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from documents.database import Database
from documents.embedder import Embedder, EmbeddingError
from documents.index import has_legacy_passages
from runs.errors import ChatError

logger = logging.getLogger(__name__)

_OWNER_VECTORS, _ALL_VECTORS = 3000, 100_000
"""Passages of one owner, and of all owners, that get vectors; the others are found by their words alone."""
_BATCH = 16
"""Passages of one request."""
_PAUSES_S = (2, 10, 60, 300)
"""Seconds before a failed request is made again; the last for all further ones."""
_TRIES = 3
"""Requests for passages that the model rejects, until it is tried with another text.

If it accepts that, the document of the passages is left without vectors after one more request.
"""
_PLAIN = ("This is a text.",)
_LONGEST_QUERY = 2000
"""Characters of a message that are compared with passages."""
_ROWS = 512
"""Vectors that are in memory at once."""
_PENDING = """
SELECT id, first + embedded, min(size - embedded, ?) FROM documents AS one
WHERE owner IS NOT NULL AND embedded < size
AND (SELECT sum(embedded) FROM documents WHERE owner = one.owner) < ? AND (SELECT sum(embedded) FROM documents) < ?
ORDER BY rowid LIMIT 1
"""
_TEXTS = "SELECT text FROM segments WHERE rowid BETWEEN ? AND ? ORDER BY rowid"
_VECTORS = """
SELECT passage, vector FROM documents JOIN vectors ON passage BETWEEN first AND first + size - 1 WHERE owner = ?
"""
_PASSAGE = """
SELECT documents.name, segments.place, segments.text
FROM segments JOIN documents ON documents.id = segments.document WHERE segments.rowid = ?
"""


class _Batch(NamedTuple):
    """Passages of a document that follow each other, from the row `first` on."""

    document: str
    first: int
    texts: list[str]


class PassageVectors(VectorStore):
    """The vectors of all owners' passages. The library adds the passages, and a task adds their vectors."""

    def __init__(self, database: Database, embedder: Embedder, least: float) -> None:
        """`least` is the least similarity of what a search finds."""
        self._database, self._embedder, self._least = database, embedder, least
        self._wanted = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        self._ready = False
        """Whether all stored vectors are of the embedder's model."""

    def open(self) -> None:
        """Begins to add missing vectors."""
        self._work = asyncio.create_task(self._add_missing())

    async def close(self) -> None:
        """Ends that work."""
        if self._work:
            self._work.cancel()
            await asyncio.wait({self._work})

    def wake(self) -> None:
        """Looks for passages without vectors."""
        self._wanted.set()

    async def asimilarity_search_with_score(
        self, *args: Any, owner: str = "", **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Returns the `k` passages of an owner's documents that are most similar to the query, best first.

        Raises ChatError for an error of the database. Without vectors, also for the query, there are none.
        """
        return await self._nearest(*args, owner=owner, **kwargs)

    async def _nearest(self, query: str, k: int = 4, *, owner: str) -> list[tuple[Document, float]]:
        if not self._ready or not await self._database.read(lambda db: db.execute(_VECTORS, (owner,)).fetchone()):
            return []
        vector = await self._embedder.query(query[:_LONGEST_QUERY])
        return await self._database.read(partial(nearest, owner, vector, k, self._least)) if vector else []

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Returns the same without the similarities."""
        return [document for document, _ in await self.asimilarity_search_with_score(query, k, **kwargs)]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> NoReturn:
        """Raises NotImplementedError: a search waits for the model."""
        raise NotImplementedError("search with asimilarity_search")

    @classmethod
    def from_texts(
        cls, texts: list[str], embedding: Embeddings, metadatas: list[dict[Any, Any]] | None = None, **kwargs: Any
    ) -> NoReturn:
        """Raises NotImplementedError: passages are added with their documents."""
        raise NotImplementedError("add documents to the library")

    async def _add_missing(self) -> None:
        """Adds vectors to passages as long as there are some without, then when it is woken."""
        failures = 0
        while True:
            self._wanted.clear()
            try:
                found = await self._next_batch()
                if found is None:
                    failures = 0
                    await self._wanted.wait()
                    continue
                failures = 0 if await self._add(found, failures) else failures + 1
            except ChatError:  # has been logged
                failures += 1
            except Exception:
                logger.exception("the vectors of documents")
                failures += 1
            if failures:
                await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S)) - 1])

    async def _next_batch(self) -> _Batch | None:
        if not self._ready:
            await self._database.write(partial(use_source, self._embedder.source))
            self._ready = True
            if await self._database.read(lambda db: db.execute("SELECT 1 FROM vectors").fetchone()):
                with suppress(Exception):  # the next use says why
                    await self._embedder.load()
        return await self._database.read(pending)

    async def _add(self, batch: _Batch, failures: int) -> bool:
        """Adds the vectors of a batch; returns whether it is done with."""
        vectors, rejected = await self._vectors(batch.texts)
        if rejected and failures + 1 >= _TRIES and (await self._vectors(_PLAIN))[0]:
            vectors, rejected = await self._vectors(batch.texts)
            if rejected:  # the model works, so the passages are at fault
                logger.warning("%s rejects a document, which is searched by words alone", self._embedder.source)
                await self._database.write(partial(give_up, batch.document))
                return True
        if vectors is None:
            return False
        await self._database.write(partial(store, batch, vectors))
        return True

    async def _vectors(self, texts: Sequence[str]) -> tuple[list[bytes] | None, bool]:
        """Returns the vectors of texts, None without, and whether the model rejected the texts."""
        try:
            return await self._embedder.passages(texts), False
        except EmbeddingError as e:
            return None, e.rejected


def use_source(source: str, db: sqlite3.Connection) -> None:
    """Deletes the vectors of another model."""
    if db.execute("SELECT 1 FROM vector_source WHERE name = ?", (source,)).fetchone():
        return
    for statement in ("DELETE FROM vectors", "UPDATE documents SET embedded = 0", "DELETE FROM vector_source"):
        db.execute(statement)
    db.execute("INSERT INTO vector_source VALUES (?)", (source,))


def pending(db: sqlite3.Connection) -> _Batch | None:
    """Returns the next passages without vectors, within the limits; none while legacy passages are being moved."""
    if has_legacy_passages(db):
        return None
    found = db.execute(_PENDING, (_BATCH, _OWNER_VECTORS, _ALL_VECTORS)).fetchone()
    if found is None:
        return None
    document, first, number = found
    return _Batch(document, first, [text for (text,) in db.execute(_TEXTS, (first, first + number - 1))])


def store(batch: _Batch, vectors: Sequence[bytes], db: sqlite3.Connection) -> None:
    """Stores the vectors of passages, unless their document was removed meanwhile."""
    found = db.execute("SELECT first + embedded FROM documents WHERE id = ?", (batch.document,)).fetchone()
    if found == (batch.first,):
        db.executemany("INSERT INTO vectors VALUES (?, ?)", list(enumerate(vectors, batch.first)))
        values = len(vectors), batch.document
        db.execute("UPDATE documents SET embedded = embedded + ? WHERE id = ?", values)


def give_up(document: str, db: sqlite3.Connection) -> None:
    """Leaves the rest of a document without vectors."""
    db.execute("UPDATE documents SET embedded = size WHERE id = ?", (document,))


def nearest(owner: str, vector: bytes, most: int, least: float, db: sqlite3.Connection) -> list[tuple[Document, float]]:
    """Returns the passages of an owner whose vectors are nearest to one, at least so near, best first."""
    wanted, found = np.frombuffer(vector, np.float32), list[tuple[float, int]]()
    rows = db.execute(_VECTORS, (owner,))
    while part := rows.fetchmany(_ROWS):
        equal = [(passage, one) for passage, one in part if len(one) == len(vector)]
        near = np.frombuffer(b"".join(one for _, one in equal), np.float32).reshape(len(equal), len(wanted)) @ wanted
        found += [(float(score), passage) for score, (passage, _) in zip(near, equal, strict=True) if score >= least]
    return [(_shown(db, passage), score) for score, passage in nlargest(most, found)]


def _shown(db: sqlite3.Connection, passage: int) -> Document:
    name, place, text = db.execute(_PASSAGE, (passage,)).fetchone()
    return Document(text, metadata={"document": name, "place": place})
