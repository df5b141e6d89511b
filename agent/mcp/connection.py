"""One connection to a server, by the package `mcp`. All that the package needs of us is here.

The connection is a task of its own, since the package wants it to be opened and closed by the same one. Calls may come
from any task. What the server asks or reports belongs to the call that waits longest: its messages do not name one.
"""

import asyncio
import logging
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mcp_types as types
from mcp.client.client import Client
from mcp.client.session import ClientRequestContext
from mcp.shared.exceptions import MCPError
from pydantic import SecretStr, TypeAdapter, ValidationError

from agent.mcp.faults import Faults, McpError, ProtocolError
from agent.mcp.http_streams import http_streams
from agent.mcp.process import LONGEST_LINE, ServerProcess
from agent.mcp.stdio_streams import stdio_streams
from settings import McpSettings

logger = logging.getLogger(__name__)

_OPEN_S = 30.0
"""Seconds in which a server must be ready for the first call."""
_PING_S = 3.0
"""Seconds in which a server must answer after a call of it was given up."""
_PAGES = 20
"""Parts of a list of tools or prompts that are read."""
_MOST_LISTED = 10_000
_ROUNDS = 10
"""Rounds of questions in one call."""
_RESULT: TypeAdapter[Any] = TypeAdapter(types.CallToolResult | types.InputRequiredResult)

_UNKNOWN = (types.METHOD_NOT_FOUND, types.UNSUPPORTED_PROTOCOL_VERSION, types.INVALID_REQUEST, types.INVALID_PARAMS)
"""Codes with which a server refuses a version of the protocol."""

Ask = Callable[[str, Any], Awaitable[Any]]
"""Asks the visitor, with a message and a form's schema; returns an ElicitResult."""


@dataclass
class CallHooks:
    """The functions of an open call that get the messages of its server."""

    progress: Callable[[float, float | None, str | None], None]
    log: Callable[[str, Any], None]
    ask: Ask
    open: bool = field(default=True)


class Connection:
    """An open connection; `open_connection` makes it."""

    def __init__(self, server: McpSettings, faults: Faults) -> None:
        self.server, self.faults = server, faults
        self.doubtful = False
        """Whether a call was given up: the server may be hanging."""
        self._calls: list[CallHooks] = []
        self._client: Client | None = None
        self._close = asyncio.Event()
        self.lists_changed = False
        """Whether the server has said that its tools or prompts have changed."""

    @property
    def alive(self) -> bool:
        """False after the connection has ended."""
        return not self.faults.over.is_set()

    @property
    def client(self) -> Client:
        """The package's client."""
        assert self._client is not None
        return self._client

    def close(self) -> None:
        """Ends the connection; returns at once."""
        self._close.set()

    async def ended(self) -> None:
        """Waits for the end of the connection, or for its first fault."""
        await self.faults.over.wait()

    @property
    def offers_prompts(self) -> bool:
        """True if the server says that it has prompts."""
        return self.client.server_capabilities.prompts is not None

    async def tools(self) -> list[Any]:
        """Returns the server's list of tools; empty for a server that offers prompts only. Raises McpError."""
        if self.offers_prompts and self.client.server_capabilities.tools is None:
            return []
        return await self._listed(self.client.session.list_tools, "tools")

    async def prompts(self) -> list[Any]:
        """Returns the server's list of prompts. Raises McpError."""
        return await self._listed(self.client.session.list_prompts, "prompts")

    async def prompt(self, name: str, arguments: Mapping[str, str]) -> Any:
        """Fills in a prompt; returns a GetPromptResult. Raises McpError."""
        with _explained(self):
            session = self.client.session
            result: Any = await session.get_prompt(name, dict(arguments), allow_input_required=True)
        if isinstance(result, types.InputRequiredResult):
            raise McpError("it asks for more before it fills in the prompt, which is not supported here.")
        return result

    async def _listed(self, fetch: Callable[..., Awaitable[Any]], kind: str) -> list[Any]:
        """Returns the parts of a list of the server, joined."""
        found, cursor = list[Any](), None
        for _ in range(_PAGES):
            with _explained(self):
                page = await fetch(params=types.PaginatedRequestParams(cursor=cursor))
            found += getattr(page, kind)
            cursor = page.next_cursor
            if not cursor or len(found) > _MOST_LISTED:
                break
        return found

    async def call(self, name: str, arguments: Mapping[str, Any], hooks: CallHooks) -> Any:
        """Calls a tool; returns a CallToolResult. A cancelled call is cancelled at the server. Raises McpError."""
        self._calls.append(hooks)
        answers: Any = None
        state: str | None = None

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            hooks.progress(progress, total, message)

        try:
            with _explained(self):
                for _ in range(_ROUNDS):
                    given = types.CallToolRequestParams(
                        name=name, arguments=dict(arguments), input_responses=answers, request_state=state
                    )
                    request = types.CallToolRequest(params=given)
                    result = await self.client.session.send_request(request, _RESULT, progress_callback=on_progress)
                    if isinstance(result, types.CallToolResult):
                        return result
                    answers, state = await self._answers(result), result.request_state
            raise McpError(f"it asked for more in {_ROUNDS} rounds, and gave no result.")
        except asyncio.CancelledError:
            self.doubtful = True
            raise
        finally:
            hooks.open = False
            self._calls.remove(hooks)

    async def read(self, uri: str) -> list[Any]:
        """Reads a resource; returns its contents. Raises McpError."""
        with _explained(self):
            found: Any = await self.client.session.read_resource(uri)
        return list(found.contents)

    async def responds(self) -> bool:
        """Checks whether the server answers at all, after a call of it was given up."""
        try:
            async with asyncio.timeout(_PING_S):
                await self.client.send_ping()
        except MCPError as e:
            return e.code == types.METHOD_NOT_FOUND
        except TimeoutError:
            return False
        self.doubtful = False
        return True

    async def _answers(self, required: Any) -> dict[str, Any]:
        """Answers what a result of the newer protocol asks for."""
        found = dict[str, Any]()
        context = ClientRequestContext(session=self.client.session, request_id="")
        for key, request in (required.input_requests or {}).items():
            answer = await self.client.session.dispatch_input_request(context, request)
            if isinstance(answer, types.ErrorData):
                raise McpError(f"it asked for something that is not supported here: {answer.message[:200]}")
            found[key] = answer
        if not found:
            await asyncio.sleep(0.1)
        return found

    async def _elicit(self, context: ClientRequestContext, params: Any) -> Any:
        if not self._calls:
            return types.ErrorData(code=types.INVALID_REQUEST, message="No call is open.")
        if not isinstance(params, types.ElicitRequestFormParams):
            return types.ElicitResult(action="decline")
        return await self._calls[0].ask(params.message, params.requested_schema)

    async def _log(self, params: Any) -> None:
        if self._calls:
            self._calls[0].log(params.level, params.data)

    async def _on_message(self, message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification | types.PromptListChangedNotification):
            self.lists_changed = True

    async def _serve(
        self, opened: "asyncio.Future[None]", folder: Path, variables: Mapping[str, SecretStr], legacy: bool
    ) -> None:
        """Opens the connection, and holds it until it is closed."""
        process: ServerProcess | None = None
        try:
            async with AsyncExitStack() as stack:
                if self.server.command:
                    process = await ServerProcess.start(self.server.command, folder, variables)
                    streams: Any = stdio_streams(process, self.faults)
                else:
                    headers = {name: variables[variable] for name, variable in self.server.headers.items()}
                    streams = http_streams(str(self.server.url), headers, self.faults)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the log of a server is for its developer, and deprecated
                    client = Client(
                        streams,
                        mode="legacy" if legacy else "auto",
                        elicitation_callback=self._elicit,
                        logging_callback=self._log,
                        message_handler=self._on_message,
                        log_level="info",
                        client_info=types.Implementation(name="glassbox", version="0.1.0"),
                        cache=None,
                    )
                self._client = await stack.enter_async_context(client)
                if not opened.done():
                    opened.set_result(None)
                await self._close.wait()
        except (Exception, asyncio.CancelledError) as e:
            if not opened.done():
                kind = ProtocolError if legacy and _is_unknown(e) else McpError
                opened.set_exception(kind(explain(e, self.faults)))
            elif isinstance(e, asyncio.CancelledError):
                raise
            else:
                self.faults.add("the connection has ended")
        finally:
            self.faults.over.set()
            if process and self.faults.reason and (written := process.errors()):
                logger.info("what the MCP server %r wrote before it failed: %s", self.server.name, written)


@asynccontextmanager
async def open_connection(
    server: McpSettings, folder: Path, variables: Mapping[str, SecretStr], *, legacy: bool = True
) -> AsyncGenerator[Connection, None]:
    """Opens a connection, which ends with the block. Raises McpError with a sentence.

    `variables` are the values of the variables that the entry names. `legacy` chooses the protocol of before 2026, in
    which servers can ask and report by themselves. Raises ProtocolError if the server does not know it.
    """
    connection = Connection(server, Faults())
    opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(connection._serve(opened, folder, variables, legacy))
    try:
        await asyncio.wait({opened}, timeout=_OPEN_S)
        if not opened.done():
            raise McpError(f"it was not ready within {_OPEN_S:.0f} s.")
        opened.result()
        yield connection
    finally:
        connection.close()
        if not opened.done():
            opened.cancel()
            serving.cancel()
        await asyncio.wait({serving})


class _explained:
    """Turns the exceptions of the package into McpError."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        if not self._connection.alive:
            raise McpError(explain(None, self._connection.faults))

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, McpError):
            sentence = explain(error, self._connection.faults)
            if isinstance(error, MCPError) and (error.code == types.CONNECTION_CLOSED or "terminated" in error.message):
                self._connection.faults.add(sentence.rstrip("."))
            raise McpError(sentence) from error


def _is_unknown(error: BaseException) -> bool:
    """True if the server refuses the request that begins the protocol of before 2026."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return isinstance(error, MCPError) and error.code in _UNKNOWN


def explain(error: BaseException | None, faults: Faults) -> str:
    """Returns a sentence about an error of the package, or of a connection."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if faults.reason:
        return f"{faults.reason}."
    if isinstance(error, MCPError) and error.message.startswith("SSE stream failed"):
        return f"it sent a message of more than {LONGEST_LINE // 1_000_000} MB, or a broken stream."
    if isinstance(error, MCPError) and error.code not in (types.CONNECTION_CLOSED, types.INTERNAL_ERROR):
        return f"it answered with an error: {error.message[:500]}"
    if faults.status in (401, 403):
        return f"it refused the request (HTTP {faults.status}): check its `headers`."
    if faults.status:
        return f"it answered HTTP {faults.status}."
    if isinstance(error, MCPError) and error.code == types.INTERNAL_ERROR:
        return f"it answered with an error: {error.message[:500]}"
    if isinstance(error, ValidationError):
        place = ", ".join(str(step) for step in error.errors()[0]["loc"])
        return f"its answer is not as the protocol says (at {place[:200]})."
    if isinstance(error, OSError) and "there is no program" in str(error):
        return f"{error}."
    if type(error).__module__.startswith("httpx2"):
        return "it cannot be reached."
    return "the connection has ended."
