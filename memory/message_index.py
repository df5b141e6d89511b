"""Which earlier messages match a new one, by their words, found in SQLite's full-text index in memory.

https://www.sqlite.org/fts5.html. See `memory/search_terms.py` for words. Ranked by BM25 with Lucene's
weight of a word: in FTS5's own, one that half of the messages have counts for nothing, and a conversation is about what
it is about.
"""

import math
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import normalize

from memory.folded_text import fold_text
from memory.messages import Message
from memory.search_terms import TOKENIZER, index_text, match, pairs, words

_WORDS, _QUERY = 32, 2000
"""Words and characters of a message that are looked for."""
_TOLD = 4
"""Words that a match names."""
_WEAK = 0.25
"""Of the best match's score; what has less is only alike by chance."""
_COMMON_WORDS = """
a about again all also am an and any are as at be been but by can could did do does doing done down for from get give go
had has have he her here him his how i if in into is it its just know let like make me more most much my no not now of
off on once one only or other our out over please really say she should so some such tell than that the their them then
there these they thing think this those to too up us use very want was way we well were what when where which while who
why will with would yes you your
"""
_COMMON = frozenset(_COMMON_WORDS.split())
"""English words that say nothing about what a message is about."""
_FIND = "SELECT rowid FROM messages WHERE messages MATCH ?"
_LONG, _OFTEN = 0.3, 1.2
"""BM25's b and k1: how much less a word says in a long message."""


@dataclass(frozen=True, slots=True)
class Match:
    """A message that has words of the query: those that say most."""

    message_id: str
    words: tuple[str, ...]


class MessageIndex:
    """The messages of one conversation. Safe in any thread."""

    def __init__(self) -> None:
        self._db: sqlite3.Connection | None = None
        self._places: dict[str, int] = {}
        """From 1, by id; a place is the number of the index's row."""
        self._lock = threading.Lock()

    def search(self, messages: Sequence[Message], text: str, most: int) -> list[Match]:
        """Those of the messages that match a text, the best first, at most so many. New ones are taken in first."""
        terms = _query(text)
        if not terms or not messages:
            return []
        with self._lock:
            db = self._take_in(messages)
            rows = {word: {row[0] for row in db.execute(_FIND, (query,))} for word, query in terms.items()}
        here = {self._places[message.id]: message for message in messages}
        mean = sum(len(message.text) for message in messages) / len(messages)
        scores: dict[int, float] = {}
        named: dict[int, list[tuple[float, str]]] = {}
        for word, found in rows.items():
            found &= here.keys()
            weight = math.log(1 + (len(here) - len(found) + 0.5) / (len(found) + 0.5))
            for place in found:
                length = 1 - _LONG + _LONG * len(here[place].text) / mean
                scores[place] = scores.get(place, 0) + weight * (_OFTEN + 1) / (1 + _OFTEN * length)
                named.setdefault(place, []).append((-weight, word))
        best = sorted(scores, key=lambda place: (-scores[place], -place))
        strong = [place for place in best if scores[place] >= scores[best[0]] * _WEAK][:most]
        return [Match(here[place].id, tuple(word for _, word in sorted(named[place])[:_TOLD])) for place in strong]

    def _take_in(self, messages: Sequence[Message]) -> sqlite3.Connection:
        if self._db is None:
            self._db = sqlite3.connect(":memory:", check_same_thread=False)
            self._db.execute(f"CREATE VIRTUAL TABLE messages USING fts5(text, tokenize = '{TOKENIZER}')")
        fresh = [message for message in messages if message.id not in self._places]
        if fresh:
            first = len(self._places) + 1
            self._places.update({message.id: first + i for i, message in enumerate(fresh)})
            rows = [(self._places[message.id], index_text(message.text)) for message in fresh]
            with self._db:
                self._db.executemany("INSERT INTO messages (rowid, text) VALUES (?, ?)", rows)
        return self._db


def _query(text: str) -> dict[str, str]:
    """The words of a text that say what it is about, each as FTS5 asks for it; all of its words where none does."""
    found = list(dict.fromkeys(words(normalize("NFC", text[:_QUERY]).lower())))
    telling = [word for word in found if fold_text(word) not in _COMMON]
    terms: dict[str, str] = {}
    for word in (telling or found)[:_WORDS]:
        terms |= {part: match(part) for part in pairs(word)}
    return {word: query for word, query in terms.items() if query}
