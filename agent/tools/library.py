"""The library: the documents that visitors have uploaded, and the project's own guide, searched by their words.

SQLite's own full-text index, ranked by bm25, in a file of its own. A visitor finds their own documents and the guide.
"""

import asyncio
import hashlib
import json
import logging
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from memory.text import clean
from runs.errors import ChatError
from runs.live import new_id

logger = logging.getLogger(__name__)

T = TypeVar("T")
Row = tuple[str, str, str]
"""A passage on its way into the index: text, heading, place."""

KINDS = "txt", "md", "pdf"
_PASSAGE = 800
"""About so many characters has a passage."""
_NAME, _WORDS, _QUERY = 100, 32, 2000
"""Characters of a name, words and characters of a query that count."""
_BUSY_S = 2.5
_PDF_S, _PDFS = 15, 2
"""The longest that reading a PDF may take, and how many are read at once."""
_CHILD = Path(__file__).with_name("pdf_child.py")

_FAILED = "The documents cannot be used at the moment. Try again; if it happens again, tell whoever runs this app."
_NO_SEARCH = "This server's SQLite has no full-text search (FTS5). Tell whoever runs this app."
_TABLES = """
CREATE TABLE IF NOT EXISTS documents (
    id TEXT PRIMARY KEY, owner TEXT, name TEXT NOT NULL, digest TEXT NOT NULL,
    first INTEGER NOT NULL, size INTEGER NOT NULL, characters INTEGER NOT NULL
);
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


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes of a file, pages of a PDF, characters of a document's text, documents of an owner."""

    file_bytes: int = 5_000_000
    pages: int = 500
    characters: int = 2_000_000
    documents: int = 20


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
        """Takes a file in; an earlier one of the same name gives way. Raises ChatError for what cannot be searched."""
        name, kind = _named(name)
        if len(data) > self.limits.file_bytes:
            raise ChatError("too_large", f"{name!r} is too large: at most {self.limits.file_bytes / 1e6:g} MB.")
        if kind == "pdf":
            async with self._pdfs:
                texts = await asyncio.to_thread(_pdf_texts, name, data, self.limits)
        else:
            texts = [await asyncio.to_thread(_decoded, name, data)]
        characters = sum(map(len, texts))
        if characters > self.limits.characters:
            raise ChatError("too_large", f"{name!r} is too long: at most {self.limits.characters:,} characters.")
        rows = await asyncio.to_thread(lambda: list(_rows(kind, map(clean, texts))))
        if not rows:
            hint = " If it is a scan, make it searchable with text recognition first." if kind == "pdf" else ""
            raise ChatError("invalid_request", f"{name!r} has no text that could be searched.{hint}")
        digest = hashlib.sha256(data).hexdigest()

        def insert(db: sqlite3.Connection) -> Document:
            others = "SELECT count(*) FROM documents WHERE owner = ? AND name != ?"
            if db.execute(others, (owner, name)).fetchone()[0] >= self.limits.documents:
                most = f"at most {self.limits.documents} documents are kept for you"
                raise ChatError("invalid_request", f"{name!r} was not added: {most}. Remove one first.")
            _delete(db, "owner = ? AND name = ?", (owner, name))
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
        return await self._use(lambda db: [Passage(*row) for row in db.execute(_SEARCH, (query, owner, most))])

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
            text = clean(data.decode("utf-8", "replace"))
            _delete(db, "owner IS NULL", ())
            _insert(db, None, self._guide.name, digest, list(_rows("md", [text])))

    def _close(self) -> None:
        with self._lock:
            if self._db:
                self._db.close()
            self._db = None


def _insert(db: sqlite3.Connection, owner: str | None, name: str, digest: str, rows: list[Row]) -> Document:
    made = Document(new_id(), name, len(rows), sum(len(text) for text, _, _ in rows))
    last = db.execute("SELECT rowid FROM passages ORDER BY rowid DESC LIMIT 1").fetchone()
    first = last[0] + 1 if last else 1
    values = made.id, owner, name, digest, first, made.passages, made.characters
    db.execute(f"INSERT INTO documents VALUES ({', '.join('?' * len(values))})", values)
    passages = [(first + i, *row, made.id) for i, row in enumerate(rows)]
    db.executemany("INSERT INTO passages (rowid, text, heading, place, document) VALUES (?, ?, ?, ?, ?)", passages)
    return made


def _delete(db: sqlite3.Connection, where: str, values: tuple[str, ...]) -> bool:
    """Deletes documents with their passages; whether there were any."""
    found = db.execute(f"SELECT id, first, size FROM documents WHERE {where}", values).fetchall()
    for document_id, first, size in found:
        db.execute("DELETE FROM passages WHERE rowid BETWEEN ? AND ?", (first, first + size - 1))
        db.execute("DELETE FROM documents WHERE id = ?", (document_id,))
    return bool(found)


def _query(words: str) -> str:
    """The words as FTS5 wants them, each quoted: so none is an operator."""
    found = [f'"{word}"' for word in re.findall(r"\w+", words[:_QUERY])[:_WORDS]]
    return " OR ".join(found) + "*" if found else ""


def _named(name: str) -> tuple[str, str]:
    """The name as it is kept, and the kind that it tells. Never a path. Raises ChatError."""
    last = re.split(r"[/\\]", name)[-1]
    stem, dot, kind = "".join(c for c in last if c.isprintable()).strip().rpartition(".")
    if not dot or kind.lower() not in KINDS:
        shown = f"{stem}{dot}{kind}"
        allowed = ", ".join(f".{kind}" for kind in KINDS)
        raise ChatError(
            "invalid_request", f"{shown[:_NAME]!r} cannot be taken: allowed are files that end in {allowed}."
        )
    return f"{stem[: _NAME - len(kind) - 1]}.{kind}", kind.lower()


def _decoded(name: str, data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = data.decode("utf-16" if wide else "cp1252", "replace")  # the Latin-1 of Windows has quotes and dashes
    if text.startswith("%PDF-") or len(re.findall(r"[\x00-\x08\x0e-\x1f]", text)) > len(text) // 100:
        raise ChatError("invalid_request", f"{name!r} cannot be read: its name says text, but it holds something else.")
    return text


def _pdf_texts(name: str, data: bytes, limits: Limits) -> list[str]:
    """The texts of a PDF's pages, read by a process of its own that can be ended. Raises ChatError."""
    if b"%PDF-" not in data[:1024]:
        raise ChatError("invalid_request", f"{name!r} cannot be read: its name says PDF, but it holds something else.")
    command = [sys.executable, "-P", str(_CHILD), str(limits.pages), str(limits.characters)]
    try:
        done = subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_PDF_S)
        answer = json.loads(done.stdout) if done.returncode == 0 else {"error": "it takes too much time or memory"}
    except subprocess.TimeoutExpired:
        answer = {"error": "it takes too much time"}
    except (OSError, ValueError) as e:
        logger.warning("the process that reads PDFs: %s", e)
        answer = {"error": "no PDF can be read here at the moment"}
    if "error" in answer:
        raise ChatError("invalid_request", f"{name!r} cannot be read: {answer['error']}.")
    return list(answer["pages"])


def _rows(kind: str, texts: Iterable[str]) -> Iterator[Row]:
    """The passages of a document, whose texts are the pages of a PDF or the one text of another kind."""
    if kind == "pdf":
        for number, page in enumerate(texts, 1):
            yield from ((part, "", f"page {number}") for part in _split(page))
        return
    sections = [section for text in texts for section in (_sections(text) if kind == "md" else [("", text)])]
    parts = ((part, heading) for heading, body in sections for part in _split(body))
    for number, (part, heading) in enumerate(parts, 1):
        yield part, heading, heading or f"section {number}"


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """The headings of a markdown text, each with what is below it; what has nothing below it is its own text."""
    text = re.sub(r"\A---\n(?:[\w-]+:.*\n)+---\n", "", text)  # settings of the file, not of its text
    heading, body, code = "", list[str](), False
    for line in text.split("\n"):
        code ^= line.lstrip().startswith("```")
        mark = None if code else re.match(r"#{1,6} ", line)
        if mark:
            yield heading, "\n".join(body).strip() or heading
            heading, body = line[mark.end() :].strip("# \t")[:_NAME], []
        else:
            body.append(line)
    yield heading, "\n".join(body).strip() or heading


def _split(text: str) -> Iterator[str]:
    """Passages that end with a paragraph, or within one that is too long for a passage."""
    passage = ""
    for paragraph in re.split(r"\n[ \t]*\n", text):
        for part in _cut(paragraph):
            if passage and len(passage) + len(part) > _PASSAGE:
                yield passage
                passage = ""
            passage += f"\n\n{part}" if passage else part
    if passage:
        yield passage


def _cut(paragraph: str) -> Iterator[str]:
    """The paragraph in parts that end with a line, a sentence or a word, where one ends in a part's second half."""
    start = 0
    while start < len(paragraph):
        end = start + _PASSAGE
        if end < len(paragraph):
            ends = (paragraph.rfind(sign, start + _PASSAGE // 2, end) for sign in ("\n", ". ", " "))
            end = next((at + 1 for at in ends if at >= 0), end)
        if part := paragraph[start:end].strip():
            yield part
        start = end
