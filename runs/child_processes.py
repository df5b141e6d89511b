"""Child processes that read visitors' files, since a file can be made to take unlimited time and memory."""

import asyncio
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from pathlib import Path
from typing import IO


class ChildProcesses:
    """Child processes, none of which outlives the task that waits for it, or `kill`."""

    def __init__(self) -> None:
        self._running = set[Process]()

    async def run(
        self,
        command: Sequence[str],
        data: bytes,
        seconds: float,
        output: IO[bytes] | None = None,
        folder: Path | None = None,
    ) -> tuple[int, bytes]:
        """Runs a program in a folder, with `data` as its input. Returns its exit code, and its output unless that is
        written to a file. Raises TimeoutError after so many seconds, and OSError if the program cannot be started.
        """
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=output or PIPE, stderr=DEVNULL, cwd=folder
        )
        self._running.add(process)
        try:
            async with asyncio.timeout(seconds):
                written, _ = await process.communicate(data)
                return await process.wait(), written or b""
        finally:
            self._running.discard(process)
            if process.returncode is None:
                process.kill()
                await process.wait()

    def kill(self) -> None:
        """Kills all that run; each call of `run` then returns a negative exit code."""
        for process in self._running:
            if process.returncode is None:
                process.kill()
