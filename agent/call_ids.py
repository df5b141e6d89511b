"""Unique ids of a run's tool calls: some servers send none, or the same ones with each reply."""

import itertools
from collections.abc import Iterable
from uuid import uuid4


class CallIds:
    """Maps each call to its id: the server's own if that is free, else a new one."""

    def __init__(self, used: Iterable[str] = ()) -> None:
        """`used` are the ids of earlier calls in the model's input."""
        self._used = set(used)
        self._named: list[dict[str, str]] = []
        """For each model call, our ids by the server's."""

    def begin(self) -> None:
        """Begins a model call."""
        self._named.append({})

    def of(self, server_id: str, call: int = -1) -> str:
        """Returns the id of a tool call whose arguments are still being written.

        `call` is the number of the model call, from 0; by default the latest.
        """
        return self._named[call].setdefault(server_id, self._new() if server_id in self._used else server_id)

    def take(self, server_id: str | None) -> str:
        """Returns the id of a complete call, and marks it as used."""
        call_id = self._named[-1].get(server_id or "", server_id)
        if not call_id or call_id in self._used:
            call_id = self._new()
        self._named[-1].setdefault(server_id or "", call_id)
        self._used.add(call_id)
        return call_id

    def _new(self) -> str:
        """Returns nine letters and digits, as Mistral's API requires; other APIs accept any id."""
        return next(made for made in (uuid4().hex[:9] for _ in itertools.count()) if made not in self._used)
