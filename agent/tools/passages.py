"""The tables of the library: documents, and their passages in SQLite's full-text index (https://www.sqlite.org/fts5.html).

`memory/segments.py` says what a term is. Every function works on an open connection, within the caller's transaction.
"""

import sqlite3
from dataclasses import dataclass
from typing import Any

from agent.tools.reading import Row
from memory.segments import TOKENIZER, index_text, match, pairs, words
from runs.live import new_id

_WORDS, _QUERY, _PAIRS = 32, 2000, 64
"""Words, characters, and pairs of characters of a query that count."""
TABLES = f"""
CREATE TABLE IF NOT EXISTS documents (
    id TEXT PRIMARY KEY, owner TEXT, name TEXT NOT NULL, digest TEXT NOT NULL,
    first INTEGER NOT NULL, size INTEGER NOT NULL, characters INTEGER NOT NULL, encoding TEXT
);
CREATE TABLE IF NOT EXISTS uses (owner TEXT PRIMARY KEY, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS documents_owner ON documents (owner, name);
CREATE VIRTUAL TABLE IF NOT EXISTS segments USING fts5(
    terms, heading, text UNINDEXED, place UNINDEXED, document UNINDEXED, tokenize = '{TOKENIZER}'
);
"""
"""`segments` has the passages of a document in the rows from `first` on: each as terms, and as it is shown."""
_INSERT = "INSERT INTO segments (rowid, terms, heading, text, place, document) VALUES (?, ?, ?, ?, ?, ?)"
_SEARCH = """
SELECT documents.name, segments.place, segments.text, -bm25(segments, 1.0, 2.0) AS score
FROM segments JOIN documents ON documents.id = segments.document
WHERE segments MATCH ? AND (documents.owner IS NULL OR documents.owner = ?) ORDER BY score DESC LIMIT ?
"""
_EARLIER = "SELECT rowid, text, heading, place, document FROM passages ORDER BY rowid LIMIT 200"
"""Of the table of earlier versions, whose words were cut at blanks alone."""


@dataclass(frozen=True, slots=True)
class Document:
    id: str
    name: str
    passages: int
    characters: int
    encoding: str | None = None
    """How the file's text was encoded; None for a PDF, and where an earlier version did not note it."""


@dataclass(frozen=True, slots=True)
class Passage:
    document: str
    """The document's name."""
    place: str
    """`page N` of a PDF, else the nearest heading, else `section N`."""
    text: str
    score: float
    """The better the higher; comparable within one search."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """A passage with its terms, which take longer to find than a search may wait for the database."""

    terms: str
    heading: str
    text: str
    place: str


def indexed(rows: list[Row]) -> list[Indexed]:
    return [Indexed(index_text(text), index_text(heading), text, place) for text, heading, place in rows]


def insert(
    db: sqlite3.Connection,
    owner: str | None,
    name: str,
    digest: str,
    rows: list[Indexed],
    encoding: str | None = None,
) -> Document:
    made = Document(new_id(), name, len(rows), characters_of(rows), encoding)
    first = db.execute("SELECT coalesce(max(first + size), 1) FROM documents").fetchone()[0]
    values = made.id, owner, name, digest, first, made.passages, made.characters, encoding
    db.execute(f"INSERT INTO documents VALUES ({', '.join('?' * len(values))})", values)  # nosec B608 # marks
    passages = [(first + i, row.terms, row.heading, row.text, row.place, made.id) for i, row in enumerate(rows)]
    db.executemany(_INSERT, passages)
    return made


def characters_of(rows: list[Indexed]) -> int:
    return sum(len(row.text) for row in rows)


def delete(db: sqlite3.Connection, where: str, values: tuple[Any, ...]) -> bool:
    """Deletes documents with their passages; whether there were any."""
    found = db.execute(f"SELECT id, first, size FROM documents WHERE {where}", values).fetchall()  # nosec B608 # ours
    for document_id, first, size in found:
        db.execute("DELETE FROM segments WHERE rowid BETWEEN ? AND ?", (first, first + size - 1))
        db.execute("DELETE FROM documents WHERE id = ?", (document_id,))
    return bool(found)


def has_earlier(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'passages'").fetchone() is not None


def move_some(db: sqlite3.Connection) -> bool:
    """Moves some passages of the earlier table into the index; false when there are none left, and no table."""
    rows = db.execute(_EARLIER).fetchall()
    if not rows:
        db.execute("DROP TABLE passages")
        return False
    kept = {row[0] for row in db.execute("SELECT id FROM documents")}
    moved = [
        (rowid, index_text(text), index_text(heading), text, place, document)
        for rowid, text, heading, place, document in rows
        if document in kept
    ]
    db.executemany(_INSERT, moved)
    db.execute("DELETE FROM passages WHERE rowid <= ?", (rows[-1][0],))
    return True


def queries_of(text: str) -> list[str]:
    """The full-text queries for a visitor's words, to be tried in turn until one finds something; none for no words.

    First the words, of which the last one may be the beginning of a word. Then their pairs of characters, since in
    scripts without blanks what looks like a word may be a sentence.
    """
    found = list(words(text[:_QUERY]))[:_WORDS]
    exact = [match(word, beginning=word is found[-1]) for word in found]
    parts = [part for word in found for part in pairs(word)][:_PAIRS]
    queries = [_any(exact)] if parts == found else [_any(exact), _any([match(part) for part in parts])]
    return [query for query in queries if query]


def search(db: sqlite3.Connection, queries: list[str], owner: str | None, most: int) -> list[Passage]:
    """What the first query finds that finds anything, the best first."""
    for query in queries:
        if rows := db.execute(_SEARCH, (query, owner, most)).fetchall():
            return [Passage(*row) for row in rows]
    return []


def _any(queries: list[str]) -> str:
    return " OR ".join(query for query in queries if query)
