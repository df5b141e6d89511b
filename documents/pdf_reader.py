"""Reads the text of PDFs in child processes, a few at once and one of each address."""

import asyncio
import json
import logging
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from weakref import WeakValueDictionary

from runs.child_processes import ChildProcesses
from runs.errors import ChatError

logger = logging.getLogger(__name__)

_AT_ONCE = 2
_WAIT_S = 120
"""Seconds for which a PDF may wait for others."""
_READ_S = 60
"""Timeout for reading a PDF in seconds, at the lowest priority. The child process limits its own CPU time as well."""
_CHILD = Path(__file__).with_name("pdf_child.py")


class PdfReader:
    """Reads PDFs: one of each address at a time, and few of all addresses. A cancelled call ends its process."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._addresses = WeakValueDictionary[str, asyncio.Lock]()
        """A lock for each address whose PDFs are read or wait."""
        self._children = ChildProcesses()

    async def read(self, name: str, data: bytes, most_pages: int, most_characters: int, address: str) -> list[str]:
        """Returns the text of each page. Raises ChatError for a PDF that cannot be read, and after a long wait."""
        if b"%PDF-" not in data[:1024]:
            raise ChatError(
                "invalid_request", f"{name!r} cannot be read: its name says PDF, but it holds something else."
            )
        async with AsyncExitStack() as turn:
            try:
                async with asyncio.timeout(_WAIT_S):
                    await turn.enter_async_context(self._addresses.setdefault(address, asyncio.Lock()))
                    await turn.enter_async_context(self._slots)
            except TimeoutError:
                message = f"{name!r} was not added: other PDFs are still being read. Add it again in a minute."
                raise ChatError("busy", message) from None
            return await self._read(name, data, most_pages, most_characters)

    async def _read(self, name: str, data: bytes, most_pages: int, most_characters: int) -> list[str]:
        command = [sys.executable, "-P", str(_CHILD), str(most_pages), str(most_characters)]
        try:
            code, output = await self._children.run(command, data, _READ_S)
            answer = json.loads(output) if code == 0 else {"error": "it takes too much time or memory"}
        except TimeoutError:
            answer = {"error": "it takes too much time"}
        except (OSError, ValueError) as e:
            logger.warning("the process that reads PDFs failed: %s", e)
            answer = {"error": "this server cannot read PDFs at the moment"}
        if "error" in answer:
            raise ChatError("invalid_request", f"{name!r} cannot be read: {answer['error']}.")
        return list(answer["pages"])

    def close(self) -> None:
        """Ends the processes that are reading a PDF; their calls raise ChatError."""
        self._children.kill()
