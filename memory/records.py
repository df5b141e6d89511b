"""Records of ended runs in memory, as long as somebody reads them. A record can be as long as its conversation, so its
readers share it, and few long ones are here at once.
"""

import asyncio
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from weakref import WeakValueDictionary

from memory.store import Store
from runs.errors import ChatError
from runs.events import escape_line_ends
from runs.threads import Threads

_LOADS = 2
"""Records that are read from the database at once; further ones wait."""
_THREADS = Threads("records", _LOADS)
_LONG = 1_000_000
"""Characters of a record that is counted as long."""
_CHARACTERS = 64_000_000
"""Characters of long records in memory, all readers together; one alone may be longer."""
_TYPE = re.compile(r'\{"type":"(\w+)"')


@dataclass(frozen=True, slots=True)
class Line:
    """One event of a stored run, as it was written."""

    seq: int
    json: str

    @property
    def type(self) -> str:
        if found := _TYPE.match(self.json):  # without reading all of a long event
            return found[1]
        return str(json.loads(self.json)["type"])


class Record(list[Line]):
    """The events of a stored run."""

    def __init__(self, lines: Iterable[Line]) -> None:
        super().__init__(lines)
        self.characters = sum(len(line.json) for line in self)


class Records:
    """One for the whole app. A record is let go of with its last reader."""

    def __init__(self, store: Store, most: int = _CHARACTERS) -> None:
        self._store, self._most = store, most
        self._here = WeakValueDictionary[str, Record]()
        self._reading = WeakValueDictionary[str, asyncio.Lock]()
        self._loads = asyncio.Semaphore(_LOADS)

    async def read(self, run_id: str) -> Record:
        """An ended run's record. Raises ChatError `not_found`, and `busy` for one long record too many."""
        async with self._reading.setdefault(run_id, asyncio.Lock()):
            if (found := self._here.get(run_id)) is None:
                async with self._loads:
                    found = await self._load(run_id)
                self._here[run_id] = found
            return found

    async def _load(self, run_id: str) -> Record:
        text = await self._store.record(run_id)
        found = await _THREADS.run(_record, text)
        others = sum(record.characters for record in self._here.values())
        if found.characters > _LONG and others and others + found.characters > self._most:
            message = "Others are reading long records: try again in a moment."
            raise ChatError("busy", message, retryable=True, retry_after=5)
        return found


def _record(text: str) -> Record:
    written = escape_line_ends(text).split("\n")  # older records have them as they are
    return Record(Line(seq, line) for seq, line in enumerate(written, 1))
