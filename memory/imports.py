"""Imports of conversations from files: read in a child process, written in batches.

Each step of parsing, folding and inserting is small, so that the event loop keeps serving other replies.
"""

import asyncio
import json
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any
from weakref import WeakValueDictionary

from memory.exports.conversation import ExportError
from memory.exports.reader import read_export
from memory.store import Store
from runs.child_processes import ChildProcesses
from runs.errors import ChatError
from runs.events import JSON
from runs.reply import ReplyPart
from runs.threads import Threads

logger = logging.getLogger(__name__)

_AT_ONCE = 2
"""Large files that are imported at once, and small ones beside them; further ones wait."""
_SMALL = 100_000
"""Bytes of a file that is parsed in a thread, since starting a process takes longer."""
_SECONDS = 180.0
_ROWS, _CHARACTERS = 200, 500_000
"""The limits of one batch."""
_UNLIMITED = 10_000_000
_THREADS = Threads("imports", _AT_ONCE)
_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class ImportResult:
    """The result of an import. `conversations` are ids and titles, the newest first; `skipped` are those that could not
    be read, each with a title and a reason, at most 20 of `skipped_in_all`; `left_out` others exceeded the limit.
    """

    conversations: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    skipped_in_all: int = 0
    left_out: int = 0


class ConversationImporter:
    """Imports files into a store."""

    def __init__(self, store: Store, most_bytes: int) -> None:
        """`most_bytes` limits the unpacked size of a ZIP file."""
        self._store, self._most_bytes = store, most_bytes
        self._large, self._small = asyncio.Semaphore(_AT_ONCE), asyncio.Semaphore(_AT_ONCE)
        self._children = ChildProcesses()
        self._owners = WeakValueDictionary[str, asyncio.Lock]()
        """A lock for each owner with imports, so that two of them cannot exceed the owner's limit together."""

    async def import_file(
        self, owner: str | None, data: bytes, capacity: Callable[[], Awaitable[int | None]]
    ) -> ImportResult:
        """Imports the conversations of a file, at most `capacity()` of them, which is called when the import begins.

        A capacity of None is unlimited. Raises ChatError for a file that cannot be imported, and without capacity.
        """
        alone = asyncio.Lock()
        if owner is not None:
            alone = self._owners.setdefault(owner, alone)
        async with alone, self._small if _is_small(data) else self._large:
            most = await capacity()
            if most == 0:
                raise ChatError(
                    "rate_limited", "There is no room for more conversations: delete some in the list first."
                )
            with TemporaryFile() as file:
                try:
                    lines = await self._parse(data, _UNLIMITED if most is None else most, file)
                    return await self._write(owner, _Lines(lines))
                except ExportError as e:
                    raise ChatError("invalid_request", str(e)) from None

    async def _parse(self, data: bytes, most: int, file: IO[bytes]) -> Iterator[JSON]:
        if _is_small(data):
            return iter(await _THREADS.run(lambda: list(read_export(data, most, self._most_bytes))))
        command = [sys.executable, "-m", "memory.exports.child", str(most), str(self._most_bytes)]
        try:
            code, _ = await self._children.run(command, data, _SECONDS, file, _ROOT)
        except TimeoutError:
            raise ExportError("The file takes too much time to be read. Import a part of it.") from None
        if code:
            logger.warning("the process that reads imports ended with %s", code)
            raise ExportError("The file takes too much time or memory to be read. Import a part of it.")
        file.seek(0)
        return (json.loads(line) for line in file)

    async def _write(self, owner: str | None, lines: "_Lines") -> ImportResult:
        imported: list[tuple[str, str]] = []
        now = time.time()
        while "head" in (line := await _THREADS.run(lines.next)):
            updated = now - len(imported) / 1000  # keeps their order in the list
            rows = lines.batches()
            imported.append(await self._store.import_messages(owner, line["title"], line["head"], updated, rows))
        if "error" in line:
            raise ExportError(line["error"])
        return ImportResult(imported, **line)


def _is_small(data: bytes) -> bool:
    return len(data) <= _SMALL and not data.startswith(b"PK")


class _Lines:
    """The lines of a parsed file. Its methods may block: each runs in a thread."""

    def __init__(self, lines: Iterator[JSON]) -> None:
        self._lines = lines
        self._ahead: JSON | None = None

    def next(self) -> JSON:
        """The next line that is not a row; the last one is {"error"}, or what was skipped."""
        line, self._ahead = self._ahead or next(self._lines), None
        return line

    async def batches(self) -> AsyncIterator[list[JSON]]:
        """The rows up to the next line that is not one."""
        while rows := await _THREADS.run(self._rows):
            yield rows

    def _rows(self) -> list[JSON]:
        rows: list[JSON] = []
        characters = 0
        while self._ahead is None and len(rows) < _ROWS and characters < _CHARACTERS:
            line: dict[str, Any] = next(self._lines)
            if "row" in line:
                rows.append(line["row"])
                characters += len(line["row"]["text"]) + sum(ReplyPart(**part).size for part in line["row"]["parts"])
            else:
                self._ahead = line
        return rows
