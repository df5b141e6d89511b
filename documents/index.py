"""The tables of the library: documents, and their passages in SQLite's full-text index (https://www.sqlite.org/fts5.html).

See `memory/search_terms.py` for terms. Every function works on an open connection, within the caller's transaction.
"""

import math
import sqlite3
from dataclasses import dataclass
from heapq import nlargest
from typing import Any

from documents.parsing import Row
from memory.search_terms import TOKENIZER, index_text, match, pairs, words
from runs.live import new_id

_WORDS, _QUERY, _PAIRS = 32, 2000, 64
"""Words, characters, and pairs of characters of a query that count."""
TABLES = f"""
CREATE TABLE IF NOT EXISTS documents (
    id TEXT PRIMARY KEY, owner TEXT, name TEXT NOT NULL, digest TEXT NOT NULL,
    first INTEGER NOT NULL, size INTEGER NOT NULL, characters INTEGER NOT NULL, encoding TEXT, origin TEXT
);
CREATE TABLE IF NOT EXISTS uses (owner TEXT PRIMARY KEY, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS documents_owner ON documents (owner, name);
CREATE VIRTUAL TABLE IF NOT EXISTS segments USING fts5(
    terms, heading, text UNINDEXED, place UNINDEXED, document UNINDEXED, tokenize = '{TOKENIZER}'
);
"""
"""`origin` stands for the address that a document was added from.

`segments` has the passages of a document in the rows from `first` on: each as terms, and as it is shown."""
_INSERT_DOCUMENT = """
INSERT INTO documents (id, owner, name, digest, first, size, characters, encoding, origin)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_INSERT = "INSERT INTO segments (rowid, terms, heading, text, place, document) VALUES (?, ?, ?, ?, ?, ?)"
_RANGES = "SELECT first, first + size - 1, characters FROM documents WHERE owner IS NULL OR owner = ? ORDER BY first"
_FIND = "SELECT rowid FROM segments WHERE segments MATCH ? AND rowid BETWEEN ? AND ?"
_SHOW = """
SELECT documents.name, segments.place, segments.text
FROM segments JOIN documents ON documents.id = segments.document WHERE segments.rowid = ?
"""
_BEGINNING = 3
"""Characters of the shortest beginning of a word: FTS5 reads all words with it, in all documents."""
_CANDIDATES = 200
"""Passages whose length is looked at."""
_LONG, _OFTEN = 0.75, 1.2
"""BM25's b and k1: how much less a word says in a long passage."""
_EARLIER = "SELECT rowid, text, heading, place, document FROM passages ORDER BY rowid LIMIT 200"
"""Of the table of earlier versions, whose words were cut at blanks alone."""


Query = list[tuple[str, ...]]
"""Words, any of which a passage may have: each as FTS5 asks for it, in forms that are tried in turn."""


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
    origin: str | None = None,
) -> Document:
    made = Document(new_id(), name, len(rows), characters_of(rows), encoding)
    first = db.execute("SELECT coalesce(max(first + size), 1) FROM documents").fetchone()[0]
    values = made.id, owner, name, digest, first, made.passages, made.characters, encoding, origin
    db.execute(_INSERT_DOCUMENT, values)
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


def queries_of(text: str) -> list[Query]:
    """The full-text queries for a visitor's words, to be tried in turn until one finds something; none for no words.

    First the words; where the last one is nowhere, it may be the beginning of a word. Then their pairs of characters,
    since in scripts without blanks what looks like a word may be a sentence.
    """
    every = list(words(text[:_QUERY]))[:_WORDS]
    found = list(dict.fromkeys(every))
    exact: Query = [(match(word),) for word in found]
    if every and len(every[-1]) >= _BEGINNING:
        exact[found.index(every[-1])] += (match(every[-1], beginning=True),)
    parts = list(dict.fromkeys(part for word in found for part in pairs(word)))[:_PAIRS]
    queries: list[Query] = [exact] if parts == found else [exact, [(match(part),) for part in parts]]
    return [kept for query in queries if (kept := [word for word in query if word[0]])]


def search(db: sqlite3.Connection, queries: list[Query], owner: str | None, most: int) -> list[Passage]:
    """What the first query finds that finds anything, the best first.

    Ranked by BM25 among the passages that the owner can find: FTS5's own ranking would read all owners' passages.
    """
    documents = db.execute(_RANGES, (owner,)).fetchall()
    ranges = _joined([(first, last) for first, last, _ in documents])
    size = sum(last - first + 1 for first, last in ranges)
    mean = sum(characters for *_, characters in documents) / max(1, size)
    for query in queries:
        if weights := _weights(db, query, ranges, size):
            best = nlargest(max(most, _CANDIDATES), weights, key=lambda row: (weights[row], -row))
            shown = [(row, *db.execute(_SHOW, (row,)).fetchone()) for row in best]
            found = [
                Passage(name, place, text, weights[row] * _share(len(text) / mean)) for row, name, place, text in shown
            ]
            return sorted(found, key=lambda passage: -passage.score)[:most]
    return []


def _weights(db: sqlite3.Connection, query: Query, ranges: list[tuple[int, int]], size: int) -> dict[int, float]:
    """How much the words that each passage has say; those in its heading twice as much."""
    weights: dict[int, float] = {}

    def rows_of(word: str) -> list[int]:
        return [row for where in ranges for (row,) in db.execute(_FIND, (word, *where))]

    for alternatives in query:
        word, rows = next(((one, found) for one in alternatives if (found := rows_of(one))), ("", []))
        if not rows:
            continue
        weight = math.log(1 + (size - len(rows) + 0.5) / (len(rows) + 0.5))
        for row in rows:
            weights[row] = weights.get(row, 0.0) + weight
        for row in rows_of(f"heading : {word}"):
            weights[row] += weight
    return weights


def _share(length: float) -> float:
    """What counts of a passage's words; `length` is a multiple of the mean."""
    return (_OFTEN + 1) / (1 + _OFTEN * (1 - _LONG + _LONG * length))


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ordered ranges, those that follow each other as one."""
    joined: list[tuple[int, int]] = []
    for first, last in ranges:
        if joined and joined[-1][1] + 1 == first:
            first = joined.pop()[0]
        joined.append((first, last))
    return joined
