"""The connections of one run: each server is connected at its first call, and all end with the run."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from agent.mcp.faults import McpError
from agent.mcp.servers import Server, Servers

if TYPE_CHECKING:
    from agent.mcp.connection import Connection

KEPT_CHARACTERS = 1_500_000
"""Characters of all that is attached to the results of one run: images, logs, data."""
_current: ContextVar["RunConnections | None"] = ContextVar("mcp connections", default=None)


class RunConnections:
    """The open connections of a run, by their server's name."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._opening: dict[str, asyncio.Future[Connection]] = {}
        self._holding: list[tuple[asyncio.Task[None], asyncio.Future[Connection]]] = []
        self.characters_left = KEPT_CHARACTERS

    async def get(self, server: Server) -> "Connection":
        """Returns the run's connection to a server; a new one if the last one has ended. Raises McpError."""
        name = server.settings.name
        while True:
            if name not in self._opening:
                self._opening[name] = self._begin(server)
            future = self._opening[name]
            try:
                connection = await asyncio.shield(future)
            except McpError:
                self._forget(name, future)
                raise
            if connection.alive and not (connection.doubtful and not await connection.responds()):
                return connection
            connection.close()
            self._forget(name, future)

    def end(self) -> None:
        """Ends all connections; returns at once."""
        for task, opened in self._holding:
            if opened.done() and not opened.cancelled() and not opened.exception():
                opened.result().close()
            else:
                task.cancel()

    def _forget(self, name: str, future: "asyncio.Future[Connection]") -> None:
        if self._opening.get(name) is future:
            del self._opening[name]

    def _begin(self, server: Server) -> "asyncio.Future[Connection]":
        opened: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        opened.add_done_callback(lambda done: done.cancelled() or done.exception())  # or asyncio complains
        task = asyncio.create_task(self._hold(server, opened))
        self._holding = [one for one in self._holding if not one[0].done()] + [(task, opened)]
        self._servers.keep(task)
        return opened

    async def _hold(self, server: Server, opened: "asyncio.Future[Connection]") -> None:
        """Opens a connection and holds it until the run ends, or the connection does."""
        try:
            async with self._servers.connect(server) as connection:
                opened.set_result(connection)
                await connection.ended()
            if connection.faults.reason:
                self._servers.report_failure(server, f"{connection.faults.reason}.")
            elif connection.lists_changed:
                server.wanted.set()
        except McpError as e:
            if not opened.done():
                opened.set_exception(e)
        finally:
            opened.cancel()


def current_connections() -> RunConnections:
    """Returns the connections of the run that calls it. Raises McpError outside of a run."""
    found = _current.get()
    if found is None:
        raise McpError("its tools can be used only in a reply.")
    return found


@contextmanager
def run_connections(servers: Servers) -> Iterator[None]:
    """Lets the calls of MCP tools in the block share their connections, which end with it."""
    connections = RunConnections(servers)
    token = _current.set(connections)
    try:
        yield
    finally:
        _current.reset(token)
        connections.end()
