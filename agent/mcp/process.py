"""The process of a server that is a program: its start, its environment, and its end."""

import asyncio
import logging
import os
import shutil
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import SecretStr

logger = logging.getLogger(__name__)

_GUARD = Path(__file__).with_name("guard.py")
_BASICS = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "TERM")
"""Environment variables that every server gets."""
LONGEST_LINE = 4_000_000
"""Bytes of a message of a server."""
_ENDING_S = 1.0
"""Seconds in which a server can end by itself after its input was closed; then it is killed."""
_TAIL = 4000
"""Characters of a server's latest errors that are kept for the log."""
_SHORTEST_SECRET = 4


class ServerProcess:
    """A running server. What it has started ends with it, and all of it with the app."""

    def __init__(self, process: Process, pipe: int, secrets: Mapping[str, SecretStr]) -> None:
        self._process, self._pipe, self._secrets = process, pipe, secrets
        self._errors = ""
        self._reading = asyncio.create_task(self._read_errors())

    @classmethod
    async def start(cls, command: Sequence[str], folder: Path, variables: Mapping[str, SecretStr]) -> "ServerProcess":
        """Starts a server in a folder, with the basic variables and these. Raises OSError with a sentence."""
        environment = {name: os.environ[name] for name in _BASICS if name in os.environ}
        environment |= {name: value.get_secret_value() for name, value in variables.items()}
        program = sys.executable if command[0] in ("python", "python3") else command[0]
        if shutil.which(_path(program, folder), path=environment.get("PATH")) is None:
            raise OSError(f"there is no program {command[0]!r} on this machine: install it, or change `command`")
        read_end, write_end = os.pipe()
        try:
            guarded = [sys.executable, "-P", str(_GUARD), str(read_end), _path(program, folder), *command[1:]]
            process = await asyncio.create_subprocess_exec(
                *guarded,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                cwd=folder,
                env=environment,
                pass_fds=(read_end,),
                start_new_session=True,
                limit=LONGEST_LINE,
            )
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)
        return cls(process, write_end, variables)

    @property
    def output(self) -> asyncio.StreamReader:
        """The messages of the server."""
        assert self._process.stdout is not None
        return self._process.stdout

    async def send(self, data: bytes) -> None:
        """Writes a message to the server. Raises OSError if it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        await self._process.stdin.drain()

    async def end(self) -> None:
        """Closes the server's input, and kills it if it does not end then."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(_ENDING_S):
                    await self._drained()
        finally:
            os.close(self._pipe)  # the guard kills what is left
            self._reading.cancel()
        await self._process.wait()

    def errors(self) -> str:
        """The end of what the server has written to its stderr, without the values of its variables."""
        text = self._errors
        for name, secret in self._secrets.items():
            if len(value := secret.get_secret_value()) >= _SHORTEST_SECRET:
                text = text.replace(value, f"[{name}]")
        return text

    async def _drained(self) -> None:
        """Waits for the end, and drops what is still written: nothing blocks the server then."""
        while await self.output.read(65_536):
            pass
        await self._process.wait()

    async def _read_errors(self) -> None:
        assert self._process.stderr is not None
        while chunk := await self._process.stderr.read(65_536):
            self._errors = (self._errors + chunk.decode(errors="replace"))[-_TAIL:]


def _path(program: str, folder: Path) -> str:
    """Returns the path of a program: one with a slash is relative to the folder of the settings."""
    return str(folder / program) if "/" in program else program
