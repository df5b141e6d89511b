"""Glassbox as an MCP server: other agents ask its backends, search its documents, and list what it offers.

The protocol is the Model Context Protocol over Streamable HTTP (https://modelcontextprotocol.io/specification), without
sessions: each request stands by itself, as those of the other routes do.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from agent.turns import Turns
from memory.modes import MODES
from runs import events
from runs.errors import ChatError
from runs.events import JSON, Event
from runs.live import LiveRun
from runs.requester import Requester
from runs.threads import Threads
from transports.dependencies import current_requester
from transports.schemas import Message, validation_error
from transports.streams import follow_run

if TYPE_CHECKING:
    from mcp.server.mcpserver import Context, MCPServer
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

PATH = "/mcp"
_MOST_PASSAGES = 20
_LISTED = ("name", "kind", "ready", "reason", "model", "about", "context", "tools")
_INSTRUCTIONS = (
    "Ask a language model and get its reply. The progress notifications of `ask` say what it does meanwhile. A later "
    "call with the same conversation_id continues the conversation."
)

Report = Callable[[float, None, str], Awaitable[None]]
"""Sends a progress notification: a number that grows, its final value (here unknown), and a text for people."""


class Answer(BaseModel):
    """The reply to a message, and where it was stored."""

    reply: str
    status: Annotated[str, Field(description="complete, or stopped: then `reply` is its beginning.")]
    backend: Annotated[str, Field(description="The backend that answered.")]
    memory: str
    conversation_id: Annotated[str, Field(description="Continues the conversation in a later call.")]
    run_id: Annotated[str, Field(description="The run's events are at /runs/RUN_ID.")]
    usage: JSON


class DocumentPassage(BaseModel):
    """A passage of a document that matches a search."""

    document: str
    place: Annotated[str, Field(description="The heading or the page; may be empty.")]
    text: str


class McpEndpoint:
    """The route `POST /mcp`. Its server is built with the first request, since its imports take most of a second."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._building = Threads("MCP server", 1)
        self._started: asyncio.Future[StreamableHTTPSessionManager] | None = None
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if self._started is None:
            self._started = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._serve(self._started), name="MCP server")
        manager = await asyncio.shield(self._started)
        await manager.handle_request(scope, receive, send)

    async def close(self) -> None:
        """Ends the requests that are being answered."""
        if self._task:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._task = self._started = None

    def route(self) -> Route:
        """The route for the app. Other methods are refused: without sessions there is nothing to follow or delete."""
        return Route(PATH, self, methods=["POST"])

    async def _serve(self, started: "asyncio.Future[StreamableHTTPSessionManager]") -> None:
        """Runs the manager of requests, whose task group must begin and end in one task."""
        try:
            server = await self._building.run(_build_server, self._turns)
            async with server.session_manager.run():
                started.set_result(server.session_manager)
                await asyncio.Event().wait()
        except Exception as e:
            self._started = None  # the next request tries again
            if started.done():
                raise
            started.set_exception(e)


def _build_server(turns: Turns) -> "MCPServer":
    """The server with its tools. The guard in front of all routes has checked host, origin and login."""
    from mcp.server.mcpserver import Context, MCPServer
    from mcp.server.transport_security import TransportSecuritySettings
    from mcp_types import CallToolResult, TextContent, ToolAnnotations

    server: MCPServer = MCPServer("Glassbox", title=turns.settings.page.title, instructions=_INSTRUCTIONS)
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)

    @server.tool(annotations=ToolAnnotations(destructive_hint=False))
    async def ask(
        ctx: Context,
        message: str,
        backend: Annotated[str | None, Field(description="A name of list_backends; the default without.")] = None,
        memory: Annotated[str | None, Field(description="A memory mode of list_backends.")] = None,
        conversation_id: Annotated[str | None, Field(description="The conversation to continue.")] = None,
    ) -> Annotated[CallToolResult, Answer]:
        """Sends a message to a language model and returns its reply."""
        with _explained():
            fields = Message(message=message, backend=backend, memory=memory, conversation_id=conversation_id)
            run = await turns.start(await fields.turn_request(turns, message, _requester(ctx)))
            last = await _follow(run, ctx.report_progress)
            if isinstance(last, events.Error):
                raise ChatError(last.code, f"{last.message} So far: {last.content}" if last.content else last.message)
        answer = Answer(
            reply=last.content,
            status=run.state.phase,
            backend=run.state.backend or run.backend,
            memory=run.memory,
            conversation_id=run.conversation_id,
            run_id=run.id,
            usage=last.usage,
        )
        text = TextContent(type="text", text=last.content)
        return CallToolResult(content=[text], structured_content=answer.model_dump())

    @server.tool(annotations=reads)
    async def search_documents(
        ctx: Context, query: str, most: Annotated[int, Field(ge=1, le=_MOST_PASSAGES)] = 5
    ) -> list[DocumentPassage]:
        """Searches the guide of Glassbox, and the documents that the visitor of the request has added."""
        requester, library = _requester(ctx), turns.toolbox.library
        with _explained():
            turns.quota.take_preview(requester, problem="Too many searches")
            found = await library.search(requester.visitor, query, most) if library else []
        return [DocumentPassage(document=one.document, place=one.place, text=one.text) for one in found]

    @server.tool(annotations=reads)
    async def list_backends(ctx: Context) -> dict[str, Any]:
        """Lists the backends, whether each is ready and if not why, and the memory modes, with the defaults."""
        listed = turns.backends.describe(_requester(ctx).visitor)
        return {
            "backends": [{name: one[name] for name in _LISTED} for one in listed],
            "default_backend": turns.backends.default.name,
            "memory_modes": {mode.name: mode.about for mode in MODES.values()},
            "default_memory_mode": turns.settings.memory.default,
        }

    server.streamable_http_app(
        stateless_http=True,
        max_request_body_size=turns.settings.limits.body_bytes,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )  # makes the session manager
    return server


def _requester(ctx: "Context") -> Requester:
    """The requester of the HTTP request, whom the guard has identified."""
    request = ctx.request_context.request
    assert isinstance(request, Request)
    return current_requester(request)


@contextmanager
def _explained() -> Iterator[None]:
    """Lets an error be the result of a tool, in the words for a visitor."""
    from mcp.server.mcpserver.exceptions import ToolError

    try:
        yield
    except ValidationError as e:
        raise ToolError(validation_error(e).message) from None
    except ChatError as e:
        wait = f" Try again in {e.retry_after:.0f} s." if e.retry_after else ""
        raise ToolError(f"{e.code}: {e.message}{wait}") from None


async def _follow(run: LiveRun, report: Report) -> events.Last:
    """Returns the last event of a run, and reports its phases and tokens. The run ends if its client leaves."""
    shown = ""
    try:
        async with aclosing(follow_run(run)) as batches:
            async for batch in batches:
                for entry in batch:
                    text = _progress(run.id, entry.event)
                    if text and text != shown:
                        await report(entry.seq, None, text)
                        shown = text
    finally:
        run.request_stop("abandoned")  # has no effect on a run that has ended
    last = run.log.entries[-1].event
    assert isinstance(last, events.Last)
    return last


def _progress(run_id: str, event: Event) -> str:
    """What an event says about the progress, in words; empty for nothing."""
    match event:
        case events.Status(phase="approval", content=content):
            return f"{content}: POST /runs/{run_id}/approve"
        case events.Status(content=content):
            return content
        case events.State(tokens_received=tokens) if tokens:
            return f"{tokens} tokens"
        case _:
            return ""
