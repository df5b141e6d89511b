"""The faults of a server, as sentences: the package `mcp` reports only that a connection has ended."""

import asyncio


class McpError(Exception):
    """A server, or a call of its tool, failed. The message is for visitors: it has no address, path or key."""


class ProtocolError(McpError):
    """A server that does not know the version of the protocol in which it was asked."""


class Faults:
    """The faults of a connection; `reason` is the first one, None as long as there is none."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.over = asyncio.Event()
        """Set at the end of the connection, or with its first fault."""
        self.status: int | None = None
        """The latest HTTP status of a response that was an error."""

    def add(self, reason: str) -> None:
        """Keeps a fault, unless there was one before: later ones follow from it."""
        self.reason = self.reason or reason
        self.over.set()

    def note_status(self, status: int) -> None:
        """Keeps the status of a response that was an error: it may be part of the protocol."""
        self.status = status
