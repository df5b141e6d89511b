"""Makes small JPEGs of visitors' images in child processes, a few at once and one of each address."""

import asyncio
import json
import logging
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from runs.child_processes import ChildProcesses
from runs.errors import ChatError

logger = logging.getLogger(__name__)

_AT_ONCE = 2
_WAIT_S = 60
"""Seconds for which an image may wait for others."""
_READ_S = 30
"""Timeout for reading an image in seconds, at a low priority. The child process limits its own CPU time, too."""
_MOST_BYTES = 600_000
"""Bytes of a JPEG; one with more is made again with a lower quality, then smaller."""
_CHILD = Path(__file__).with_name("image_child.py")


class ImageReader:
    """Reads images: one of each address at a time, and few of all addresses. A cancelled call ends its process."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._addresses = WeakValueDictionary[str, asyncio.Lock]()
        """A lock for each address whose images are read or wait."""
        self._children = ChildProcesses()

    async def read(self, name: str, data: bytes, most_pixels: int, side: int, address: str) -> tuple[int, int, bytes]:
        """Returns the width and height of a JPEG, and the JPEG. Raises ChatError for a file that is no image, and after
        a long wait. `name` is for people.
        """
        async with AsyncExitStack() as turn:
            try:
                async with asyncio.timeout(_WAIT_S):
                    await turn.enter_async_context(self._addresses.setdefault(address, asyncio.Lock()))
                    await turn.enter_async_context(self._slots)
            except TimeoutError:
                message = f"{name} was not added: other images are still being read. Add it again in a minute."
                raise ChatError("busy", message, retryable=True) from None
            about, jpeg = await self._read(data, most_pixels, side)
        if "error" in about:
            raise ChatError("invalid_request", f"{name} cannot be added: {about['error']}.")
        return about["width"], about["height"], jpeg

    async def _read(self, data: bytes, most_pixels: int, side: int) -> tuple[dict[str, Any], bytes]:
        command = [sys.executable, "-P", str(_CHILD), str(most_pixels), str(side), str(_MOST_BYTES)]
        try:
            code, output = await self._children.run(command, data, _READ_S)
            about, _, jpeg = output.partition(b"\n")
            if code == 0:
                return json.loads(about), jpeg
            return {"error": "it takes too much time or memory"}, b""
        except TimeoutError:
            return {"error": "it takes too much time"}, b""
        except (OSError, ValueError) as e:
            logger.warning("the process that reads images failed: %s", e)
            return {"error": "this server cannot read images at the moment"}, b""

    def close(self) -> None:
        """Ends the processes that are reading an image; their calls raise ChatError."""
        self._children.kill()
