"""A cache of the records of ended runs, each in memory as long as it is read.

A record can be as long as its conversation. So its readers share it, and long ones are limited, for each address and
in all.
"""

import asyncio
import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from weakref import WeakSet, WeakValueDictionary

from memory.store import Store
from memory.stored_turns import decompressed
from runs.errors import ChatError
from runs.json_text import escape_line_ends
from runs.threads import Threads

_LOADS = 2
"""Records that are read from the database at once; further ones wait."""
_THREADS = Threads("records", _LOADS)
_LONG_RECORD = 1_000_000
"""Characters from which on a record is long."""
_CHARACTERS = 128_000_000
"""Characters of all long records in memory; a single one may be longer."""
_OF_ADDRESS = 32_000_000
"""Characters of long records that one address reads at once; a single one may be longer."""
_TYPE = re.compile(r'\{"type":"(\w+)"')
_CHUNK = 64_000
_HEAD = 100
"""Bytes of a line that contain its type."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event of a stored run as JSON."""

    seq: int
    json: str

    @property
    def type(self) -> str:
        """The type of the event."""
        if found := _TYPE.match(self.json):  # without parsing a long event
            return found[1]
        return str(json.loads(self.json)["type"])


class Record(list[StoredEvent]):
    """The events of a stored run."""

    def __init__(self, lines: Iterable[StoredEvent]) -> None:
        super().__init__(lines)
        self.characters = sum(len(line.json) for line in self)


@dataclass(frozen=True, eq=False)
class RecordLease:
    """One reader's reference to a record, which keeps it in memory."""

    record: Record
    address: str | None


@dataclass(frozen=True, slots=True)
class RecordEnd:
    """The number of a run's events, and the type of the last one."""

    events: int
    type: str


class RecordCache:
    """The cache, one for the whole app. A record leaves it with its last reader."""

    def __init__(self, store: Store, most: int = _CHARACTERS, of_address: int = _OF_ADDRESS) -> None:
        self._store, self._most, self._of_address = store, most, of_address
        self._records = WeakValueDictionary[str, Record]()
        self._leases = WeakSet[RecordLease]()
        self._locks = WeakValueDictionary[str, asyncio.Lock]()
        self._loads = asyncio.Semaphore(_LOADS)

    async def read(self, run_id: str, address: str | None) -> RecordLease:
        """An ended run's record, to be held while it is read.

        Raises ChatError `not_found`, and `busy` where it would exceed a limit of long records.
        """
        async with self._locks.setdefault(run_id, asyncio.Lock()):
            if (found := self._records.get(run_id)) is None:
                async with self._loads:
                    found = await _THREADS.run(_record, await self._store.compressed_record(run_id))
            self._check(found, address)
            self._records[run_id] = found
            lease = RecordLease(found, address)
            self._leases.add(lease)
            return lease

    async def end(self, run_id: str) -> RecordEnd:
        """The end of an ended run's record, without loading the record. Raises ChatError `not_found`."""
        if (found := self._records.get(run_id)) is not None:
            return RecordEnd(len(found), found[-1].type)
        async with self._loads:
            return await _THREADS.run(_end, await self._store.compressed_record(run_id))

    def _check(self, record: Record, address: str | None) -> None:
        if record.characters <= _LONG_RECORD:
            return
        of_address = {id(lease.record): lease.record.characters for lease in self._leases if lease.address == address}
        of_all = {id(one): one.characters for one in self._records.values()}
        for read, most, who in ((of_address, self._of_address, "Your address is"), (of_all, self._most, "Others are")):
            others = sum(characters for key, characters in read.items() if key != id(record))
            if id(record) not in read and others and others + record.characters > most:
                message = f"{who} reading long records: try again in a moment."
                raise ChatError("busy", message, retryable=True, retry_after=5)


def _record(packed: bytes) -> Record:
    lines = escape_line_ends(decompressed(packed)).split("\n")  # older records have other line ends unescaped
    return Record(StoredEvent(seq, line) for seq, line in enumerate(lines, 1))


def _end(packed: bytes) -> RecordEnd:
    """The end of a record, decompressed in chunks. Raises ValueError for a truncated one."""
    decompressor, rest, events, head = zlib.decompressobj(), packed, 1, b""
    while not decompressor.eof:
        chunk = decompressor.decompress(rest, _CHUNK)
        if not chunk and not decompressor.unconsumed_tail:
            raise ValueError("a truncated record")
        rest = decompressor.unconsumed_tail
        events += chunk.count(b"\n")
        _, line_end, last = chunk.rpartition(b"\n")
        head = (last if line_end else head + last)[:_HEAD]
    found = _TYPE.match(head.decode("utf-8", "ignore"))
    return RecordEnd(events, found[1] if found else _record(packed)[-1].type)
