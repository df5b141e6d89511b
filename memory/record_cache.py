"""Records of ended runs in memory, as long as somebody reads them. A record can be as long as its conversation, so its
readers share it, and few long ones are here at once, of one address fewer still.
"""

import asyncio
import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from weakref import WeakSet, WeakValueDictionary

from memory.store import Store, decompressed
from runs.errors import ChatError
from runs.events import escape_line_ends
from runs.threads import Threads

_LOADS = 2
"""Records that are read from the database at once; further ones wait."""
_THREADS = Threads("records", _LOADS)
_LONG = 1_000_000
"""Characters of a record that is counted as long."""
_CHARACTERS = 128_000_000
"""Characters of long records in memory, all readers together; one alone may be longer."""
_OF_ADDRESS = 32_000_000
"""Characters of long records that are read from one address; one alone may be longer."""
_TYPE = re.compile(r'\{"type":"(\w+)"')
_CHUNK = 64_000
_HEAD = 100
"""Bytes of a line that hold its type."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event of a stored run, as it was written."""

    seq: int
    json: str

    @property
    def type(self) -> str:
        if found := _TYPE.match(self.json):  # without reading all of a long event
            return found[1]
        return str(json.loads(self.json)["type"])


class Record(list[StoredEvent]):
    """The events of a stored run."""

    def __init__(self, lines: Iterable[StoredEvent]) -> None:
        super().__init__(lines)
        self.characters = sum(len(line.json) for line in self)


@dataclass(frozen=True, eq=False)
class RecordLease:
    """One reader's hold on a record, from an address."""

    record: Record
    address: str | None


@dataclass(frozen=True, slots=True)
class RecordEnd:
    """What is asked of a record most often: how many events it has, and the last one's type."""

    events: int
    type: str


class RecordCache:
    """One for the whole app. A record is let go of with its last reader."""

    def __init__(self, store: Store, most: int = _CHARACTERS, of_address: int = _OF_ADDRESS) -> None:
        self._store, self._most, self._of_address = store, most, of_address
        self._here = WeakValueDictionary[str, Record]()
        self._readings = WeakSet[RecordLease]()
        self._reading = WeakValueDictionary[str, asyncio.Lock]()
        self._loads = asyncio.Semaphore(_LOADS)

    async def read(self, run_id: str, address: str | None) -> RecordLease:
        """An ended run's record, to be held while it is read. Raises ChatError `not_found`, and `busy` for one long
        record too many.
        """
        async with self._reading.setdefault(run_id, asyncio.Lock()):
            if (found := self._here.get(run_id)) is None:
                async with self._loads:
                    found = await _THREADS.run(_record, await self._store.compressed_record(run_id))
            self._check(found, address)
            self._here[run_id] = found
            reading = RecordLease(found, address)
            self._readings.add(reading)
            return reading

    async def end(self, run_id: str) -> RecordEnd:
        """How an ended run's record ends; it takes little memory, and is never `busy`. Raises ChatError `not_found`."""
        if (found := self._here.get(run_id)) is not None:
            return RecordEnd(len(found), found[-1].type)
        async with self._loads:
            return await _THREADS.run(_end, await self._store.compressed_record(run_id))

    def _check(self, record: Record, address: str | None) -> None:
        if record.characters <= _LONG:
            return
        theirs = {id(r.record): r.record.characters for r in self._readings if r.address == address}
        for here, most, who in (
            (theirs, self._of_address, "Your address is"),
            ({id(one): one.characters for one in self._here.values()}, self._most, "Others are"),
        ):
            others = sum(characters for key, characters in here.items() if key != id(record))
            if id(record) not in here and others and others + record.characters > most:
                message = f"{who} reading long records: try again in a moment."
                raise ChatError("busy", message, retryable=True, retry_after=5)


def _record(packed: bytes) -> Record:
    written = escape_line_ends(decompressed(packed)).split("\n")  # older records have them as they are
    return Record(StoredEvent(seq, line) for seq, line in enumerate(written, 1))


def _end(packed: bytes) -> RecordEnd:
    """The end of a record that is never unpacked as a whole."""
    unpacking, rest, events, head = zlib.decompressobj(), packed, 1, b""
    while not unpacking.eof:
        chunk = unpacking.decompress(rest, _CHUNK)
        if not chunk and not unpacking.unconsumed_tail:
            raise ValueError("a record that was not stored whole")
        rest = unpacking.unconsumed_tail
        events += chunk.count(b"\n")
        _, line_end, last = chunk.rpartition(b"\n")
        head = (last if line_end else head + last)[:_HEAD]
    found = _TYPE.match(head.decode("utf-8", "ignore"))
    return RecordEnd(events, found[1] if found else _record(packed)[-1].type)
