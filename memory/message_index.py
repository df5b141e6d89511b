"""A full-text index of a conversation's messages, to find the earlier ones that match a new one.

It is SQLite's FTS5 in memory (https://www.sqlite.org/fts5.html); its terms are those of `memory/search_terms.py`. The
ranking is BM25 with Lucene's weight of a word: in FTS5's own, a word in half of the messages has no weight, and the
words that matter in a conversation are frequent in it.
"""

import math
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import normalize

from memory.messages import Message
from memory.search_terms import TOKENIZER, index_text, is_common, match, pairs, words

_WORDS, _QUERY = 32, 2000
"""Words and characters of a message that are searched for."""
_MATCH_WORDS = 4
"""Words that a match names."""
_WEAK = 0.25
"""The least score of a match, as a share of the best one's."""
_FIND = "SELECT rowid FROM messages WHERE messages MATCH ?"
_B, _K1 = 0.3, 1.2
"""The parameters of BM25."""


@dataclass(frozen=True, slots=True)
class Match:
    """A message that matches a query, and the words with the greatest weight."""

    message_id: str
    words: tuple[str, ...]


class MessageIndex:
    """An index of one conversation's messages. It is thread-safe."""

    def __init__(self) -> None:
        self._db: sqlite3.Connection | None = None
        self._rows: dict[str, int] = {}
        """The row of each message in the index, by id."""
        self._lock = threading.Lock()

    def search(self, messages: Sequence[Message], text: str, most: int) -> list[Match]:
        """The messages that match a text, the best first, at most `most`. Adds new messages to the index first."""
        terms = _query(text)
        if not terms or not messages:
            return []
        with self._lock:
            db = self._add(messages)
            rows = {word: {row[0] for row in db.execute(_FIND, (query,))} for word, query in terms.items()}
        known = {self._rows[message.id]: message for message in messages}
        mean = sum(len(message.text) for message in messages) / len(messages)
        scores: dict[int, float] = {}
        named: dict[int, list[tuple[float, str]]] = {}
        for word, found in rows.items():
            found &= known.keys()
            weight = math.log(1 + (len(known) - len(found) + 0.5) / (len(found) + 0.5))
            for row in found:
                length = 1 - _B + _B * len(known[row].text) / mean
                scores[row] = scores.get(row, 0) + weight * (_K1 + 1) / (1 + _K1 * length)
                named.setdefault(row, []).append((-weight, word))
        best = sorted(scores, key=lambda row: (-scores[row], -row))
        strong = [row for row in best if scores[row] >= scores[best[0]] * _WEAK][:most]
        return [Match(known[row].id, tuple(word for _, word in sorted(named[row])[:_MATCH_WORDS])) for row in strong]

    def _add(self, messages: Sequence[Message]) -> sqlite3.Connection:
        if self._db is None:
            self._db = sqlite3.connect(":memory:", check_same_thread=False)
            self._db.execute(f"CREATE VIRTUAL TABLE messages USING fts5(text, tokenize = '{TOKENIZER}')")
        fresh = [message for message in messages if message.id not in self._rows]
        if fresh:
            first = len(self._rows) + 1
            self._rows.update({message.id: first + i for i, message in enumerate(fresh)})
            rows = [(self._rows[message.id], index_text(message.text)) for message in fresh]
            with self._db:
                self._db.executemany("INSERT INTO messages (rowid, text) VALUES (?, ?)", rows)
        return self._db


def _query(text: str) -> dict[str, str]:
    """The words of a text, without stop words unless there are no others, each with its FTS5 query."""
    found = list(dict.fromkeys(words(normalize("NFC", text[:_QUERY]).lower())))
    specific = [word for word in found if not is_common(word)]
    terms: dict[str, str] = {}
    for word in (specific or found)[:_WORDS]:
        terms |= {part: match(part) for part in pairs(word)}
    return {word: query for word, query in terms.items() if query}
