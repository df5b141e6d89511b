"""Keys: the operator's, and the ones that visitors bring. They live in this process's memory and nowhere else.

A visitor's key belongs to one backend, is gone some minutes after their last page, and is never put into the
environment, which all visitors share. Nothing prints one: a `Key` shows no more than that it is one, and the log is
cleared of all of them.
"""

import time
import weakref
from collections.abc import Callable, Collection, Iterable
from typing import Any

from runs.errors import ChatError

_MOST_CHARACTERS = 1000
_SHORTEST_CLEARED = 6
"""What is shorter is no key, and to clear the log of it would make it unreadable."""
_known: "weakref.WeakSet[Key]" = weakref.WeakSet()


class Key:
    """A key; equal only to itself. `from_visitor` means that a visitor brought it."""

    __slots__ = ("__weakref__", "_secret", "from_visitor")

    def __init__(self, secret: str, *, from_visitor: bool = False) -> None:
        self._secret, self.from_visitor = secret, from_visitor
        _known.add(self)

    def reveal(self) -> str:
        """The key itself: only for the constructor field that it belongs to, and for a request's header."""
        return self._secret

    def __repr__(self) -> str:
        return "Key(…)"

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a key is neither stored nor copied")


def redact_keys(text: str, visitors: Collection[Key] | None = None) -> str:
    """A text without any key that this process holds; of visitors' keys only those in `visitors`, if given."""
    keys = [key for key in list(_known) if visitors is None or not key.from_visitor or key in visitors]
    for secret in sorted((key.reveal() for key in keys), key=len, reverse=True):  # one may begin with another
        if len(secret) >= _SHORTEST_CLEARED:
            text = text.replace(secret, "[key]")
    return text


class VisitorKeys:
    """What visitors brought, by visitor and backend.

    The keys of a visitor are forgotten `absent_s` seconds after a page of theirs was last seen, or one of their keys
    used (a reload is no end); each of them `idle_s` seconds after its own last use; and the ones least lately used
    where there are more than `most` in all.
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
        """Takes a visitor's key. Raises ChatError as `parse`."""
        self.store(visitor, backend, self.parse(visitor, text))

    def parse(self, visitor: str | None, text: str) -> Key:
        """A key that a visitor brings, not kept yet. Raises ChatError for what cannot be one, without repeating it."""
        if visitor is None:
            raise ChatError(
                "invalid_request", "A key can only be kept for a page with cookies: allow them, and reload."
            )
        text = text.strip()
        if not text:
            raise ChatError("invalid_request", "There is no key: paste one first.")
        if len(text) > _MOST_CHARACTERS or not (text.isascii() and text.isprintable()) or " " in text:
            raise ChatError("invalid_request", "This is no key: a key is one word of letters, digits and signs.")
        return Key(text, from_visitor=True)

    def store(self, visitor: str | None, backend: str, key: Key) -> None:
        """Keeps a visitor's key, instead of an earlier one."""
        place = visitor or "", backend
        self._keys.pop(place, None)  # the newest comes last
        self._keys[place], self._used[place] = key, self._clock()
        self._seen[place[0]] = self._clock()
        self.expire()

    def get(self, visitor: str | None, backend: str) -> Key | None:
        """The visitor's key for a backend, if they brought one that is still kept."""
        if self._clock() - self._swept > 1.0:
            self.expire()
        place = visitor or "", backend
        if place not in self._keys:
            return None
        self._used[place] = self._seen[place[0]] = self._clock()
        return self._keys[place]

    def all_of(self, visitor: str | None) -> list[Key]:
        """All of a visitor's keys."""
        return [key for (owner, _), key in self._keys.items() if owner == visitor]

    def forget(self, visitor: str | None, backend: str) -> None:
        self._keys.pop((visitor or "", backend), None)
        self._used.pop((visitor or "", backend), None)

    def mark_present(self, visitors: Iterable[str]) -> None:
        """Each of these has a page open now."""
        now = self._clock()
        self._seen |= {visitor: now for visitor in visitors if visitor in self._seen}

    def expire(self) -> None:
        """Forgets the keys whose time has come; needs no call, but that leaves them in memory until the next use."""
        now = self._swept = self._clock()
        for visitor, backend in list(self._keys):
            if now - self._seen[visitor] > self._absent_s or now - self._used[visitor, backend] > self._idle_s:
                self.forget(visitor, backend)
        while len(self._keys) > self._most:
            self.forget(*min(self._used, key=self._used.__getitem__))
        kept = {visitor for visitor, _ in self._keys}
        self._seen = {visitor: at for visitor, at in self._seen.items() if visitor in kept}
