"""Which earlier messages match a new one, by their words: SQLite's full-text index in memory, ranked by bm25.

https://www.sqlite.org/fts5.html. Words are stemmed for English; Chinese, Japanese and Korean, which write no blanks,
are matched by pairs of characters.
"""

import itertools
import re
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from memory.messages import Message

_WORDS, _QUERY = 32, 2000
"""Words and characters of a message that are looked for."""
_TOLD = 4
"""Words that a match names."""
_WEAK = 0.25
"""Of the best match's score; what has less is only alike by chance."""
_WIDE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_WIDE}]+|[^\W_{_WIDE}]+")
_EACH = re.compile(rf"([{_WIDE}])")
_COMMON_WORDS = """
a about again all also am an and any are as at be been but by can could did do does doing done down for from get give go
had has have he her here him his how i if in into is it its just know let like make me more most much my no not now of
off on once one only or other our out over please really say she should so some such tell than that the their them then
there these they thing think this those to too up us use very want was way we well were what when where which while who
why will with would yes you your
"""
_COMMON = frozenset(_COMMON_WORDS.split())
"""English words that say nothing about what a message is about."""
_FIND = """
SELECT rowid, highlight(messages, 0, char(2), char(3)), bm25(messages) AS rank
FROM messages WHERE messages MATCH ? ORDER BY rank, rowid LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class Match:
    """A message that has words of the query: some of them, as they stand in it."""

    message_id: str
    words: tuple[str, ...]


class Index:
    """The messages of one conversation. Safe in any thread."""

    def __init__(self) -> None:
        self._db: sqlite3.Connection | None = None
        self._ids: list[str] = []
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def search(self, messages: Sequence[Message], text: str, most: int) -> list[Match]:
        """Those of the messages that match a text, the best first, at most so many. New ones are taken in first."""
        query = _query(text)
        if not query:
            return []
        with self._lock:
            db = self._take_in(messages)
            rows = db.execute(_FIND, (query, most + len(self._ids) - len(messages))).fetchall()
        here = {message.id for message in messages}
        found = [row for row in rows if self._ids[row[0] - 1] in here]
        return [Match(self._ids[row[0] - 1], _marked(row[1])) for row in found if row[2] <= found[0][2] * _WEAK][:most]

    def _take_in(self, messages: Sequence[Message]) -> sqlite3.Connection:
        if self._db is None:
            self._db = sqlite3.connect(":memory:", check_same_thread=False)
            tokenize = "porter unicode61 remove_diacritics 2"
            self._db.execute(f"CREATE VIRTUAL TABLE messages USING fts5(text, tokenize = '{tokenize}')")
        if len(self._known) < len(messages) or messages[-1].id not in self._known:
            fresh = [message for message in messages if message.id not in self._known]
            first = len(self._ids) + 1
            rows = [(first + i, _spaced(message.text)) for i, message in enumerate(fresh)]
            with self._db:
                self._db.executemany("INSERT INTO messages (rowid, text) VALUES (?, ?)", rows)
            self._ids += [message.id for message in fresh]
            self._known.update(message.id for message in fresh)
        return self._db


def _query(text: str) -> str:
    """The words of a text that say what it is about, as FTS5 asks for any of them; all of them where none does."""
    words = list(dict.fromkeys(_WORD.findall(text[:_QUERY].lower())))
    telling = [word for word in words if word not in _COMMON]
    pairs = [pair for word in (telling or words)[:_WORDS] for pair in _pairs(word)]
    return " OR ".join(f'"{pair}"' for pair in pairs)


def _pairs(word: str) -> list[str]:
    """A word as it is; one without blanks within as pairs of its characters."""
    if not _EACH.match(word) or len(word) == 1:
        return [word]
    return [f"{first} {second}" for first, second in itertools.pairwise(word)]


def _spaced(text: str) -> str:
    return _EACH.sub(r" \1 ", text)


def _marked(text: str) -> tuple[str, ...]:
    """The words that FTS5 has marked, each once, in the order of the text."""
    words = [found.replace("  ", "") for found in re.findall("\x02(.*?)\x03", text, re.DOTALL)]
    return tuple(dict.fromkeys(word.strip().lower() for word in words))[:_TOLD]
