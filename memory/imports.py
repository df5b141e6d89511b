"""Imports of conversations from files: read by a process of their own, written in batches.

What is parsed, folded or inserted at once is small, so that the event loop goes on with everybody else's replies.
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
from runs.errors import ChatError
from runs.events import JSON
from runs.reply import ReplyPart
from runs.threads import Threads

logger = logging.getLogger(__name__)

_AT_ONCE = 2
"""Files that are imported at once; further ones wait."""
_SMALL = 100_000
"""Bytes of a file that a thread may parse: to start a process takes longer."""
_SECONDS = 180.0
_ROWS, _CHARACTERS = 200, 500_000
"""The most of one batch."""
_UNLIMITED = 10_000_000
_THREADS = Threads("imports", _AT_ONCE)
_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What has come of a file. `conversations` are ids and titles, the newest first; `skipped` are those that could not
    be read, each with a title and a reason, at most 20 of `skipped_in_all`; there was no room for `left_out` others.
    """

    conversations: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    skipped_in_all: int = 0
    left_out: int = 0


class ConversationImporter:
    """Imports files into a store."""

    def __init__(self, store: Store, most_bytes: int) -> None:
        """`most_bytes` bounds what a ZIP file may unpack to."""
        self._store, self._most_bytes = store, most_bytes
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._owners = WeakValueDictionary[str, asyncio.Lock]()
        """One for each owner whose imports run or wait, so that they do not share the same room."""

    async def import_file(
        self, owner: str | None, data: bytes, room: Callable[[], Awaitable[int | None]]
    ) -> ImportResult:
        """Imports the conversations of a file, at most as many as there is `room` for when its turn has come.

        `room` returns None where there is no limit. Raises ChatError for what cannot be imported, and where there is no
        room.
        """
        alone = asyncio.Lock()
        if owner is not None:
            alone = self._owners.setdefault(owner, alone)
        async with alone, self._slots:
            most = await room()
            if most == 0:
                raise ChatError(
                    "rate_limited", "There is no room for more conversations: delete some in the list first."
                )
            with TemporaryFile() as file:
                try:
                    lines = await self._lines(data, _UNLIMITED if most is None else most, file)
                    return await self._written(owner, _Lines(lines))
                except ExportError as e:
                    raise ChatError("invalid_request", str(e)) from None

    async def _lines(self, data: bytes, room: int, file: IO[bytes]) -> Iterator[JSON]:
        if len(data) <= _SMALL and not data.startswith(b"PK"):
            return iter(await _THREADS.run(lambda: list(read_export(data, room, self._most_bytes))))
        command = [sys.executable, "-m", "memory.exports.child", str(room), str(self._most_bytes)]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=file, stderr=asyncio.subprocess.DEVNULL, cwd=_ROOT
        )
        try:
            async with asyncio.timeout(_SECONDS):
                await process.communicate(data)
        except TimeoutError:
            raise ExportError("The file takes too much time to be read. Import a part of it.") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            logger.warning("the process that reads imports ended with %s", process.returncode)
            raise ExportError("The file takes too much time or memory to be read. Import a part of it.")
        file.seek(0)
        return (json.loads(line) for line in file)

    async def _written(self, owner: str | None, lines: "_Lines") -> ImportResult:
        made: list[tuple[str, str]] = []
        now = time.time()
        while "head" in (line := await _THREADS.run(lines.next)):
            updated = now - len(made) / 1000  # in the list they stand in their order
            rows = lines.batches()
            made.append(await self._store.import_messages(owner, line["title"], line["head"], updated, rows))
        if "error" in line:
            raise ExportError(line["error"])
        return ImportResult(made, **line)


class _Lines:
    """The lines of a file that was read, some rows at a time. Its methods may block: each runs in a thread."""

    def __init__(self, lines: Iterator[JSON]) -> None:
        self._lines = lines
        self._ahead: JSON | None = None

    def next(self) -> JSON:
        """The next line that is no row; at the end {"error"} or what was left out."""
        line, self._ahead = self._ahead or next(self._lines), None
        return line

    async def batches(self) -> AsyncIterator[list[JSON]]:
        """The rows up to the next line that is none."""
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
