"""Ids of a run's tool calls, each used once: some servers give none, or number the calls anew with each reply."""

import itertools
from collections.abc import Iterable
from uuid import uuid4


class CallIds:
    """Gives each call its id: the server's own where that is free, else a new one."""

    def __init__(self, used: Iterable[str] = ()) -> None:
        """`used` are the ids of calls of earlier turns, which are given again."""
        self._used = set(used)
        self._renamed: dict[str, str] = {}

    def begin(self) -> None:
        """A model call begins."""
        self._renamed.clear()

    def of(self, given: str) -> str:
        """The id that a call with the server's id gets once it is whole; for what is told while it is written."""
        return self._renamed.setdefault(given, self._new()) if given in self._used else given

    def take(self, given: str | None) -> str:
        """The id of a whole call; it is in use from now on."""
        free = given if given and given not in self._used else self._new()
        call_id = self._renamed.pop(given or "", free)
        self._used.add(call_id)
        return call_id

    def _new(self) -> str:
        """An id of nine letters and digits, as Mistral's API requires; others accept any."""
        return next(made for made in (uuid4().hex[:9] for _ in itertools.count()) if made not in self._used)
