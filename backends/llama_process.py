"""The child process of a local model, which runs llama.cpp's server: its start, its end, and its environment."""

import asyncio
import contextlib
import json
import logging
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from backends.reading_speed import Reading
from backends.watchdog import Watchdog
from runs.events import JSON
from runs.threads import Threads

logger = logging.getLogger(__name__)

_LOAD_S = 300.0
"""The timeout of loading, in seconds."""
_SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL|AUTH|DATABASE", re.IGNORECASE)
"""The names of variables that are removed from the process's environment."""


class LoadError(Exception):
    """An error while a model is loaded; the message is for the page."""


class LlamaProcess:
    """A running child process; the constructor starts it."""

    def __init__(self, backend: str) -> None:
        # -P keeps the script's folder off the import path, where backends/langchain.py would shadow a package
        command = [sys.executable, "-P", str(Path(__file__).with_name("llama_child.py"))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        # cached conversations are large blocks: with glibc's default threshold, freed ones are not returned
        environment = {name: value for name, value in os.environ.items() if not _SECRET.search(name)}
        environment = {"MALLOC_MMAP_THRESHOLD_": "262144", **environment}
        self.key, self.address = secrets.token_hex(16), ""
        self._backend = backend
        self._child: subprocess.Popen[str] = subprocess.Popen(command, text=True, env=environment, **pipes)  # type: ignore[call-overload]  # nosec B603 # ours
        self._watchdog: Watchdog | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """False after the process has ended."""
        return self._child.poll() is None

    @property
    def responds(self) -> bool:
        """False if the latest check of the watchdog failed."""
        return self._watchdog is None or self._watchdog.responds

    async def load(
        self,
        path: Path,
        reader: Threads,
        report: Callable[[float | None], None],
        **parameters: int | Reading,
    ) -> None:
        """Loads a model and sets `address`; `report` gets the loaded share, 0 to 1. Raises LoadError.

        `reader` runs the blocking read; `parameters` are `context`, `slots`, `threads` and `reading` of llama_child.py.
        """
        result = await self._configure(path, reader, report, {"path": str(path), "key": self.key, **parameters})
        if result.get("missing"):
            raise LoadError(f"the Python package {result['missing']} is not installed")
        if "address" not in result:
            raise LoadError(f"{path.name} cannot be loaded: it may be damaged or too big for this machine")
        self.address = result["address"]

    async def measure(
        self, path: Path, reader: Threads, report: Callable[[float | None], None], threads: int, most_threads: int
    ) -> Reading | None:
        """Measures how the model reads best; None if the machine was not idle, or the process was ended.

        `report` is called several times a second meanwhile. Raises LoadError.
        """
        config = {"path": str(path), "key": self.key, "threads": threads, "most_threads": most_threads}
        result = await self._configure(path, reader, report, config)
        reading: Reading | None = result.get("reading") if result.get("idle") else None
        return reading

    def watch(self) -> None:
        """Starts the watchdog."""
        self._watchdog = Watchdog(self._backend, self.address, self._child)
        self._watchdog.start()

    def end(self) -> None:
        """Kills the process and waits for its end."""
        if self._watchdog:
            self._watchdog.stop()
        self._child.kill()
        self._child.wait(timeout=10)
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe:
                pipe.close()

    async def _configure(
        self, path: Path, reader: Threads, report: Callable[[float | None], None], config: JSON
    ) -> JSON:
        """Sends the configuration and returns the process's reply; empty if it has ended."""
        assert self._child.stdin is not None and self._child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already; the reply is then empty
            self._child.stdin.write(json.dumps(config) + "\n")
            self._child.stdin.flush()
        reading = asyncio.ensure_future(reader.run(self._child.stdout.readline))
        try:
            async with asyncio.timeout(_LOAD_S):
                while not reading.done():
                    report(self._loaded_share(path))
                    await asyncio.wait({reading}, timeout=0.2)
            result: JSON = json.loads(reading.result() or "{}")
            return result
        except TimeoutError:
            raise LoadError(f"it did not load within {_LOAD_S:.0f} s") from None
        except ValueError:
            return {}

    def _loaded_share(self, path: Path) -> float | None:
        """The loaded share, by the process's resident memory; None without /proc."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            resident = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * 4096
            return round(min(0.99, resident / max(1, path.stat().st_size)), 2)
        return None
