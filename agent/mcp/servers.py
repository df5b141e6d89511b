"""The servers of the settings: the health of each, its tools and prompts, and the connections of runs to it.

A server is connected once at the start to list what it offers, and again, after a growing pause, as long as that fails.
"""

import asyncio
import contextlib
import importlib
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import SecretStr

from agent.mcp.faults import McpError, ProtocolError
from agent.mcp.forms import FormError
from agent.mcp.prompts import ListedPrompt, check_prompts, prompt_text
from agent.mcp.schemas import ListedTool, check_tools, sound_name
from runs.errors import ChatError
from runs.events import JSON
from runs.threads import Threads
from settings import McpSettings, Settings

if TYPE_CHECKING:
    from agent.mcp.connection import Connection

logger = logging.getLogger(__name__)

State = Literal["starting", "ready", "failed", "restarting"]
_PAUSES_S = (2, 5, 15, 60, 300)
"""Seconds before a failed server is tried again; the last for all further ones."""
_LIST_S = 30.0
"""Seconds in which a server must list its tools."""
_PROMPTS_S = 10.0
"""Seconds in which it must list its prompts; it has none otherwise."""
_FILL_S = 30.0
"""Seconds in which a prompt must be filled in, the connection included."""
_WAIT_S = 15.0
"""Seconds that a call waits for a free connection."""
_IMPORT = Threads("import of mcp", 1)


class Server:
    """One server: its entry, its health, its tools and its prompts."""

    def __init__(self, settings: McpSettings) -> None:
        self.settings = settings
        self.state: State = "starting"
        self.reason = ""
        """Why it failed, as a sentence; empty if it did not."""
        self.tools: list[ListedTool] = []
        self.prompts: list[ListedPrompt] = []
        self.refused: list[str] = []
        """Sentences about tools and prompts that are not offered."""
        self.legacy = True
        """Whether it is asked in the protocol of before 2026, in which servers can ask and report by themselves."""
        self.wanted = asyncio.Event()
        """Set when it should be looked at now."""

    def asks(self, tool: ListedTool) -> bool:
        """True if a call of the tool waits for the visitor's approval."""
        approval = self.settings.approval
        return approval == "always" or (approval == "destructive" and not tool.harmless)

    def fail(self, reason: str) -> None:
        """Records that it failed: it offers nothing."""
        self.tools, self.prompts, self.state, self.reason = [], [], "failed", reason

    def listed(self) -> JSON:
        """The server as `GET /tool-servers` and the page show it."""
        return {
            "name": self.settings.name,
            "transport": "stdio" if self.settings.command else "http",
            "state": self.state,
            "reason": self.reason,
            "tools": len(self.tools),
            "prompts": [prompt.listed() for prompt in self.prompts],
            "refused": self.refused,
        }


class Servers:
    """All servers. `version` grows with each change of their tools."""

    def __init__(
        self,
        entries: Sequence[McpSettings] = (),
        folder: Path = Path(),
        variables: Mapping[str, SecretStr] | None = None,
        most: int = 8,
        *,
        on_space: bool = False,
    ) -> None:
        self.servers = [Server(entry) for entry in entries]
        self.version = 0
        self._folder, self._variables, self._on_space = folder, variables or {}, on_space
        self._free = asyncio.Semaphore(most)
        self._most = most
        self._tasks: list[asyncio.Task[None]] = []
        self._open = set[asyncio.Task[None]]()

    @classmethod
    def from_settings(cls, settings: Settings) -> "Servers":
        """Returns the servers of the settings."""
        return cls(
            settings.mcp,
            settings.folder,
            settings.mcp_variables,
            settings.limits.mcp_processes,
            on_space=settings.on_space,
        )

    def open(self) -> None:
        """Begins to connect the servers."""
        self._tasks = [asyncio.create_task(self._watch(server)) for server in self.servers]

    async def close(self) -> None:
        """Ends the connections."""
        for task in (*self._tasks, *self._open):
            task.cancel()
        if open_ := {*self._tasks, *self._open}:
            await asyncio.wait(open_, timeout=3)

    def tools(self, taken: Sequence[str]) -> dict[str, tuple[Server, ListedTool]]:
        """Returns the tools by their names; only where two are equal, or one is `taken`, the server's name is added."""
        every = [(server, tool) for server in self.servers for tool in server.tools]
        names = [*taken, *(tool.name for _, tool in every)]
        found = dict[str, tuple[Server, ListedTool]]()
        for server, tool in every:
            name = tool.name
            if names.count(name) > 1:
                name = sound_name(f"{server.settings.name}_{name}")
            if name not in found and name not in taken:
                found[name] = server, tool
        return found

    @asynccontextmanager
    async def connect(self, server: Server) -> AsyncGenerator["Connection", None]:
        """Opens a connection for a run. Raises McpError with a sentence if there is none within some seconds."""
        try:
            async with asyncio.timeout(_WAIT_S):
                await self._free.acquire()
        except TimeoutError:
            raise McpError(
                f"all {self._most} connections are in use by other replies; try again in a minute."
            ) from None
        try:
            async with self._connected(server) as connection:
                yield connection
        except McpError as e:
            self.report_failure(server, str(e))
            raise
        finally:
            self._free.release()

    async def fill_prompt(self, server: str, name: str, given: Mapping[str, Any], most: int) -> str:
        """Returns the message, of at most so many characters, that a server makes of its prompt. Raises ChatError."""
        found = next((one for one in self.servers if one.settings.name == server), None)
        prompt = next((one for one in found.prompts if one.name == name), None) if found else None
        if found is None or prompt is None:
            raise ChatError("not_found", "There is no such prompt: GET /tool-servers lists the prompts.")
        try:
            arguments = prompt.arguments(given)
            async with asyncio.timeout(_FILL_S):
                return prompt_text(await self._filled(found, name, arguments), most)
        except FormError as e:
            raise ChatError("invalid_request", str(e)) from None
        except TimeoutError:
            raise ChatError("timeout", f"{server}: it did not fill in the prompt within {_FILL_S:.0f} s.") from None
        except McpError as e:
            raise ChatError("tool_failed", f"{server}: {e}") from None

    def report_failure(self, server: Server, reason: str) -> None:
        """Looks at a server again after a connection of a run has failed."""
        if server.state == "ready":
            logger.warning("the MCP server %r failed: %s", server.settings.name, reason)
            server.state, server.reason = "restarting", reason
        server.wanted.set()

    def keep(self, task: "asyncio.Task[None]") -> None:
        """Keeps the task of a run's connection until it has ended."""
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _filled(self, server: Server, name: str, arguments: Mapping[str, str]) -> Any:
        """Returns a server's answer to a prompt. Raises McpError; a refusal is no failure of the server."""
        async with self.connect(server) as connection:
            try:
                return await connection.prompt(name, arguments)
            except McpError as e:
                if not connection.alive:
                    raise
                refusal = e
        raise refusal

    @asynccontextmanager
    async def _connected(self, server: Server) -> AsyncGenerator["Connection", None]:
        if server.settings.command and self._on_space and not server.settings.on_space:
            raise McpError("its program may not run on a Space; `on_space = true` in its entry allows it.")
        module = await _IMPORT.run(importlib.import_module, "agent.mcp.connection")
        opening = module.open_connection(
            server.settings, self._folder, self._variables_of(server), legacy=server.legacy
        )
        async with opening as connection:
            yield connection

    def _variables_of(self, server: Server) -> dict[str, SecretStr]:
        return {name: self._variables[name] for name in server.settings.variables}

    async def _watch(self, server: Server) -> None:
        """Lists what the server offers now, when that is wanted, and again while it fails."""
        failures = 0
        while True:
            before = server.tools
            try:
                async with asyncio.timeout(_LIST_S * 2 + _PROMPTS_S), self._connected(server) as connection:
                    async with asyncio.timeout(_LIST_S):
                        listed = await connection.tools()
                    server.prompts, problems = await _prompts_of(server, connection)
                server.tools, server.refused = check_tools(listed, server.settings.tools)
                server.refused += problems
                server.state, server.reason, failures = "ready", "", 0
                for sentence in server.refused:
                    logger.warning("the MCP server %r: not offered: %s", server.settings.name, sentence)
            except ProtocolError:
                server.legacy = False
                continue
            except (McpError, TimeoutError) as e:
                reason = str(e) or f"it did not list its tools within {_LIST_S:.0f} s."
                if reason != server.reason:
                    logger.warning("the MCP server %r is not ready: %s", server.settings.name, reason)
                server.fail(reason)
                failures += 1
            except Exception:
                logger.exception("the MCP server %r", server.settings.name)
                server.fail("it cannot be used; see the log.")
                failures += 1
            self.version += server.tools != before
            pause = _PAUSES_S[min(failures, len(_PAUSES_S)) - 1] if failures else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await server.wanted.wait()
            server.wanted.clear()
            if failures:
                server.state = "restarting"


async def _prompts_of(server: Server, connection: "Connection") -> tuple[list[ListedPrompt], list[str]]:
    """Returns a server's prompts, and sentences about what is not offered. Without a list of them it has none."""
    if not connection.offers_prompts:
        return check_prompts([], server.settings.prompts)
    try:
        async with asyncio.timeout(_PROMPTS_S):
            listed = await connection.prompts()
    except (McpError, TimeoutError) as e:
        return [], [f"its prompts: {str(e) or f'it did not list them within {_PROMPTS_S:.0f} s.'}"]
    return check_prompts(listed, server.settings.prompts)
