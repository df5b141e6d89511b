"""The tables of the library: documents, and a full-text index of their passages (https://www.sqlite.org/fts5.html).

Every function works on an open connection, within the caller's transaction. The terms of the index are those of
`memory/search_terms.py`.
"""

import math
import sqlite3
from dataclasses import dataclass
from heapq import nlargest
from typing import Any

from documents.parsing import ParsedPassage
from memory.search_terms import TOKENIZER, index_text, is_common, match, pairs, words
from runs.live import new_id

_WORDS, _QUERY, _PAIRS = 32, 2000, 64
"""The words, characters and pairs of characters of a query that are used."""
TABLES = f"""
CREATE TABLE IF NOT EXISTS documents (
    id TEXT PRIMARY KEY, owner TEXT, name TEXT NOT NULL, digest TEXT NOT NULL,
    first INTEGER NOT NULL, size INTEGER NOT NULL, characters INTEGER NOT NULL, encoding TEXT, origin TEXT,
    embedded INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS vectors (passage INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS vector_source (name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS uses (owner TEXT PRIMARY KEY, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS documents_owner ON documents (owner, name);
CREATE VIRTUAL TABLE IF NOT EXISTS segments USING fts5(
    terms, heading, text UNINDEXED, place UNINDEXED, document UNINDEXED, tokenize = '{TOKENIZER}'
);
"""
"""`origin` is a hash of the address that the document was uploaded from.

`segments` holds the passages of a document in consecutive rows from `first` on, as terms and as the original text. The
first `embedded` of them have vectors, of the model `vector_source`, or need none; see `documents/vectors.py`.
"""
_INSERT_DOCUMENT = """
INSERT INTO documents (id, owner, name, digest, first, size, characters, encoding, origin)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_INSERT = "INSERT INTO segments (rowid, terms, heading, text, place, document) VALUES (?, ?, ?, ?, ?, ?)"
_RANGES = "SELECT first, first + size - 1, characters FROM documents WHERE owner IS ? OR owner = ? ORDER BY first"
_FIND = "SELECT rowid FROM segments WHERE segments MATCH ? AND rowid BETWEEN ? AND ?"
_SHOW = """
SELECT documents.name, segments.place, segments.text
FROM segments JOIN documents ON documents.id = segments.document WHERE segments.rowid = ?
"""
_PREFIX = 3
"""The shortest prefix of a word that is searched: FTS5 reads every word with this prefix, in all documents."""
_CANDIDATES = 200
"""The passages that are ranked by their length as well."""
_B, _K1 = 0.75, 1.2
"""The parameters of BM25: how much a word counts for less in a long passage."""
_LEGACY = "SELECT rowid, text, heading, place, document FROM passages ORDER BY rowid LIMIT 200"
"""Reads the table of earlier versions, which split text into words at blanks only."""


Query = list[tuple[str, ...]]
"""Words, one of which a passage must contain: each as a tuple of FTS5 expressions that are tried in order."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document of the library."""

    id: str
    name: str
    passages: int
    characters: int
    encoding: str | None = None
    """The encoding of the file; None for a PDF, and for documents of versions that did not store it."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage that a search has found."""

    document: str
    """The document's name."""
    place: str
    """`page N` of a PDF, else the nearest heading, else `section N`."""
    text: str
    score: float
    """The relevance; comparable within one search."""


@dataclass(frozen=True, slots=True)
class IndexedPassage:
    """A passage and its terms. Computing the terms takes too long to do within a transaction."""

    terms: str
    heading: str
    text: str
    place: str


def index_passages(passages: list[ParsedPassage]) -> list[IndexedPassage]:
    """Computes the terms of passages."""
    return [IndexedPassage(index_text(text), index_text(heading), text, place) for text, heading, place in passages]


def insert(
    db: sqlite3.Connection,
    owner: str | None,
    name: str,
    digest: str,
    passages: list[IndexedPassage],
    encoding: str | None = None,
    origin: str | None = None,
) -> Document:
    """Inserts a document with its passages."""
    document = Document(new_id(), name, len(passages), count_characters(passages), encoding)
    first = db.execute("SELECT coalesce(max(first + size), 1) FROM documents").fetchone()[0]
    values = document.id, owner, name, digest, first, document.passages, document.characters, encoding, origin
    db.execute(_INSERT_DOCUMENT, values)
    rows = [(first + i, p.terms, p.heading, p.text, p.place, document.id) for i, p in enumerate(passages)]
    db.executemany(_INSERT, rows)
    return document


def count_characters(passages: list[IndexedPassage]) -> int:
    """Counts the characters of all passages."""
    return sum(len(passage.text) for passage in passages)


def delete(db: sqlite3.Connection, where: str, values: tuple[Any, ...]) -> bool:
    """Deletes documents with their passages; returns whether there were any."""
    found = db.execute(f"SELECT id, first, size FROM documents WHERE {where}", values).fetchall()  # nosec B608 # ours
    for document_id, first, size in found:
        db.execute("DELETE FROM segments WHERE rowid BETWEEN ? AND ?", (first, first + size - 1))
        db.execute("DELETE FROM vectors WHERE passage BETWEEN ? AND ?", (first, first + size - 1))
        db.execute("DELETE FROM documents WHERE id = ?", (document_id,))
    return bool(found)


def has_legacy_passages(db: sqlite3.Connection) -> bool:
    """Checks for the table of earlier versions."""
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'passages'").fetchone() is not None


def migrate_legacy_passages(db: sqlite3.Connection) -> bool:
    """Moves some passages of the legacy table into the index; drops the empty table and returns False at the end."""
    rows = db.execute(_LEGACY).fetchall()
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


def build_queries(text: str) -> list[Query]:
    """Builds the full-text queries for a search text; the first one that finds anything counts. Empty without words.

    The first query has the words; the last word may be a prefix where it is not found as it stands. The second query
    has their pairs of characters, for scripts without blanks, where what looks like a word may be a sentence.
    """
    every = list(words(text[:_QUERY]))[:_WORDS]
    found = list(dict.fromkeys(every))
    exact: Query = [(match(word),) for word in found]
    if every and len(every[-1]) >= _PREFIX:
        exact[found.index(every[-1])] += (match(every[-1], beginning=True),)
    parts = list(dict.fromkeys(part for word in found for part in pairs(word)))[:_PAIRS]
    queries: list[Query] = [exact] if parts == found else [exact, [(match(part),) for part in parts]]
    return [kept for query in queries if (kept := [word for word in query if word[0]])]


def specific_words(text: str) -> str:
    """Returns the words of a text that are no stop words, separated by spaces."""
    return " ".join(word for word in words(text[:_QUERY]) if not is_common(word))


def search(
    db: sqlite3.Connection, queries: list[Query], owner: str | None, most: int, *, guide: bool = True
) -> list[Passage]:
    """Returns the results of the first query that finds anything, best first; `guide` is searched as well.

    BM25 is computed over the passages that the owner can find: FTS5's own ranking would read all owners' passages.
    """
    documents = db.execute(_RANGES, (None if guide else owner, owner)).fetchall()
    ranges = _merge_ranges([(first, last) for first, last, _ in documents])
    size = sum(last - first + 1 for first, last in ranges)
    mean = sum(characters for *_, characters in documents) / max(1, size)
    for query in queries:
        if weights := _weights(db, query, ranges, size):
            best = nlargest(max(most, _CANDIDATES), weights, key=lambda row: (weights[row], -row))
            rows = [(row, *db.execute(_SHOW, (row,)).fetchone()) for row in best]
            found = [
                Passage(name, place, text, weights[row] * _length_factor(len(text) / mean))
                for row, name, place, text in rows
            ]
            return sorted(found, key=lambda passage: -passage.score)[:most]
    return []


def _weights(db: sqlite3.Connection, query: Query, ranges: list[tuple[int, int]], size: int) -> dict[int, float]:
    """Sums the inverse document frequencies of each passage's words; words in its heading count twice."""
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


def _length_factor(length: float) -> float:
    """The factor of BM25 for a passage's length, given as a multiple of the mean."""
    return (_K1 + 1) / (1 + _K1 * (1 - _B + _B * length))


def _merge_ranges(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merges adjacent ranges of a sorted list."""
    merged: list[tuple[int, int]] = []
    for first, last in ranges:
        if merged and merged[-1][1] + 1 == first:
            first = merged.pop()[0]
        merged.append((first, last))
    return merged
