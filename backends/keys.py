"""Keys: the operator's and the visitors'. They are kept in this process's memory only.

A visitor's key belongs to one backend and is forgotten `absent_s` after the visitor's last page session. It is never
put into the environment, which all visitors share. A key is never printed: its `repr` is empty, and the log redacts it.
"""

import json
import time
import weakref
from collections.abc import Callable, Collection, Iterable
from typing import Any

from runs.errors import ChatError

_MOST_CHARACTERS = 1000
_SHORTEST_REDACTED = 6
"""Shorter keys are not redacted: the log would become unreadable."""
_known: "weakref.WeakSet[Key]" = weakref.WeakSet()


class Key:
    """A secret key; equal only to itself. `from_visitor` is True for a visitor's key."""

    __slots__ = ("__weakref__", "_secret", "from_visitor")

    def __init__(self, secret: str, *, from_visitor: bool = False) -> None:
        self._secret, self.from_visitor = secret, from_visitor
        _known.add(self)

    def reveal(self) -> str:
        """Returns the secret: only for a client's constructor and a request's header."""
        return self._secret

    def is_in(self, body: bytes) -> bool:
        """True if the body of a request contains the secret."""
        plain = self._secret.encode()
        return len(plain) >= _SHORTEST_REDACTED and (plain in body or json.dumps(self._secret)[1:-1].encode() in body)

    def __repr__(self) -> str:
        return "Key(…)"

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a key can be neither stored nor copied")


def redact_keys(text: str, visitors: Collection[Key] | None = None) -> str:
    """Redacts the keys of this process in a text; only those of the visitors' keys that are in `visitors`, if given."""
    keys = [key for key in list(_known) if visitors is None or not key.from_visitor or key in visitors]
    for secret in sorted((key.reveal() for key in keys), key=len, reverse=True):  # one may start with another
        if len(secret) >= _SHORTEST_REDACTED:
            text = text.replace(secret, "[key]")
    return text


class VisitorKeys:
    """The visitors' keys, by visitor and backend.

    A visitor's keys are forgotten `absent_s` seconds after their last open page or last use of a key, and each key
    `idle_s` seconds after its own last use. Of more than `most` keys the least recently used are forgotten.
    """

    def __init__(
        self,
        absent_s: float = 600.0,
        idle_s: float = 12 * 3600.0,
        most: int = 1000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys: dict[tuple[str, str], Key] = {}
        self._used: dict[tuple[str, str], float] = {}
        self._seen: dict[str, float] = {}
        self._absent_s, self._idle_s, self._most, self._clock = absent_s, idle_s, most, clock
        self._swept = clock()

    def put(self, visitor: str | None, backend: str, text: str) -> None:
        """Parses and stores a visitor's key. Raises ChatError as `parse`."""
        self.store(visitor, backend, self.parse(visitor, text))

    def parse(self, visitor: str | None, text: str) -> Key:
        """Parses a visitor's key without storing it. Raises ChatError, which never contains the text."""
        if visitor is None:
            raise ChatError(
                "invalid_request", "A key can only be kept for a page with cookies: allow them, and reload."
            )
        text = text.strip()
        if not text:
            raise ChatError("invalid_request", "The key is empty: paste one first.")
        if len(text) > _MOST_CHARACTERS or not (text.isascii() and text.isprintable()) or " " in text:
            raise ChatError("invalid_request", "This is not a key: a key is one word of letters, digits and signs.")
        return Key(text, from_visitor=True)

    def store(self, visitor: str | None, backend: str, key: Key) -> None:
        """Stores a visitor's key and replaces an earlier one."""
        entry = visitor or "", backend
        self._keys.pop(entry, None)  # the newest comes last
        self._keys[entry], self._used[entry] = key, self._clock()
        self._seen[entry[0]] = self._clock()
        self.expire()

    def get(self, visitor: str | None, backend: str) -> Key | None:
        """Returns the visitor's key for a backend, if there is one."""
        if self._clock() - self._swept > 1.0:
            self.expire()
        entry = visitor or "", backend
        if entry not in self._keys:
            return None
        self._used[entry] = self._seen[entry[0]] = self._clock()
        return self._keys[entry]

    def all_of(self, visitor: str | None) -> list[Key]:
        """Returns all keys of a visitor."""
        return [key for (owner, _), key in self._keys.items() if owner == visitor]

    def forget(self, visitor: str | None, backend: str) -> None:
        """Forgets a visitor's key for a backend."""
        self._keys.pop((visitor or "", backend), None)
        self._used.pop((visitor or "", backend), None)

    def mark_present(self, visitors: Iterable[str]) -> None:
        """Records that these visitors have a page open."""
        now = self._clock()
        self._seen |= {visitor: now for visitor in visitors if visitor in self._seen}

    def expire(self) -> None:
        """Forgets expired keys. `get` calls it too, but not while no key is used."""
        now = self._swept = self._clock()
        for visitor, backend in list(self._keys):
            if now - self._seen[visitor] > self._absent_s or now - self._used[visitor, backend] > self._idle_s:
                self.forget(visitor, backend)
        while len(self._keys) > self._most:
            self.forget(*min(self._used, key=self._used.__getitem__))
        kept = {visitor for visitor, _ in self._keys}
        self._seen = {visitor: at for visitor, at in self._seen.items() if visitor in kept}
