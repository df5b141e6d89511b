"""Tools of servers as LangChain tools: a call reports progress, asks the visitor, and gives text and attachments."""

import asyncio
import json
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any

from langchain_core.tools import BaseTool
from pydantic import ConfigDict, Field

from agent.mcp.faults import McpError
from agent.mcp.forms import FormError, checked_answer, form_fields, question
from agent.mcp.results import characters, read_contents, read_result, text_attachment
from agent.mcp.run_connections import RunConnections, current_connections
from agent.mcp.schemas import ListedTool
from agent.mcp.servers import Server
from agent.questions import current_ask
from agent.tool_results import Attachments
from agent.tools.streaming import current_listener
from runs.events import JSON
from runs.text import valid_text

SERVER = "mcp_server"
"""Key in the `metadata` of a tool: the name of its server."""
_MOST_PROGRESS = 20_000
"""Characters of the progress of one call that are shown."""
_WAITING = 100
"""Messages of progress that wait to be shown; later ones are dropped."""
_GAP_S = 0.1
"""Least seconds between two partial results."""
_MOST_LOG = 10_000
"""Characters of the log of one call."""
_MOST_LINKS = 3
"""Resources that a result refers to, and that are read."""
_READ_S = 10.0
_MOST_QUESTIONS = 10
"""Questions of one call; further ones are cancelled."""
_AGAIN = 5
"""Times that a question is asked again after an answer that does not fit."""
_CANCEL_S = 0.3
"""Seconds for telling a server that its call is cancelled."""


class McpTool(BaseTool):
    """A tool of a server."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    response_format: Any = "content_and_artifact"
    server: Server = Field(exclude=True, repr=False)
    listed: ListedTool = Field(exclude=True, repr=False)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("a tool of a server is called asynchronously")

    async def _arun(self, /, **arguments: Any) -> tuple[str, list[JSON]]:
        try:
            connections = current_connections()
            connection = await connections.get(self.server)
            return await _Call(self, connection, connections).run(_coerced(self.listed.schema, arguments))
        except McpError as e:
            raise McpError(f"{self.server.settings.name}: {e}") from None


def make_tool(name: str, server: Server, listed: ListedTool) -> McpTool:
    """Makes the tool that models and commands call by a name."""
    metadata = {SERVER: server.settings.name}
    schema = {**listed.schema, "title": name, "description": listed.description}
    return McpTool(
        name=name,
        description=listed.description,
        args_schema=schema,
        metadata=metadata,
        server=server,
        listed=listed,
    )


class _Call:
    """One call of a tool: what its server reports and asks meanwhile."""

    def __init__(self, tool: McpTool, connection: Any, connections: RunConnections) -> None:
        self._tool, self._connection, self._connections = tool, connection, connections
        self._inbox: asyncio.Queue[str | _Question] = asyncio.Queue(_WAITING)
        self._log, self._shown, self._asked = "", 0, 0

    async def run(self, arguments: Mapping[str, Any]) -> tuple[str, list[JSON]]:
        """Calls the tool and returns its text and its attachments. Raises McpError."""
        from agent.mcp.connection import CallHooks

        hooks = CallHooks(self._on_progress, self._on_log, self._on_question)
        work = asyncio.create_task(self._connection.call(self._tool.listed.called, arguments, hooks))
        try:
            await self._serve(work)
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait({work}, timeout=_CANCEL_S)
        result = work.result()
        text, attachments = read_result(result)
        attachments += await self._linked(result)
        if self._log:
            attachments.append(text_attachment("log", "Log of the server", self._log))
        if result.is_error:
            raise McpError(text or "the tool failed without saying why.")
        if self._shown and (listener := current_listener()):
            await listener(text)
        kept = attachments if characters(attachments) <= self._connections.characters_left else []
        self._connections.characters_left -= characters(kept)
        return text, Attachments(kept)

    async def _serve(self, work: "asyncio.Task[Any]") -> None:
        """Shows progress and asks questions until the call ends."""
        listener = current_listener()
        while not work.done():
            getting = asyncio.ensure_future(self._inbox.get())
            await asyncio.wait({work, getting}, return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                getting.cancel()
                break
            found = [getting.result()]
            while not self._inbox.empty():
                found.append(self._inbox.get_nowait())
            text = "".join(f"{one}\n" for one in found if isinstance(one, str))[: _MOST_PROGRESS - self._shown]
            if text and listener:
                self._shown += len(text)
                await listener(text)
            for one in found:
                if isinstance(one, _Question):
                    await _race(self._answer(one), work)
            await asyncio.wait({work}, timeout=_GAP_S)

    def _on_progress(self, done: float, total: float | None, message: str | None) -> None:
        share = f"{done:g} of {total:g}" if total else f"{done:g}"
        with suppress(asyncio.QueueFull):
            self._inbox.put_nowait(f"{share}: {valid_text(message)[:500]}" if message else share)

    def _on_log(self, level: str, data: Any) -> None:
        if len(self._log) < _MOST_LOG:
            text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, default=str)
            self._log += f"{level}: {valid_text(text)[: _MOST_LOG - len(self._log)]}\n"

    async def _on_question(self, message: str, schema: Any) -> Any:
        """Asks the visitor in the context of the call, and returns an ElicitResult."""
        from mcp_types import ElicitResult

        self._asked += 1
        if self._asked > _MOST_QUESTIONS:
            return ElicitResult(action="cancel")
        asked = _Question(message, schema, asyncio.get_running_loop().create_future())
        await self._inbox.put(asked)
        return await asked.answer

    async def _answer(self, asked: "_Question") -> None:
        from mcp_types import ElicitResult

        action, content = await self._ask(asked)
        if not asked.answer.done():
            asked.answer.set_result(ElicitResult(action=action, content=content))

    async def _ask(self, asked: "_Question") -> tuple[Any, JSON | None]:
        """Returns the action of the visitor, accept, decline or cancel, and the values of the form."""
        ask, problem = current_ask(), ""
        try:
            fields = form_fields(asked.schema)
        except FormError:
            return "decline", None
        if ask is None:
            return "cancel", None
        for _ in range(_AGAIN):
            given = question(self._tool.server.settings.name, asked.message, fields, problem)
            answer = await ask(given)
            if not answer.approved:
                return "decline", None
            try:
                return "accept", checked_answer(fields, (answer.input or given).get("answer"))
            except FormError as e:
                problem = str(e)
        return "cancel", None

    async def _linked(self, result: Any) -> list[JSON]:
        """Reads the resources to which a result refers, as far as that succeeds in time."""
        links = [block.uri for block in result.content if block.type == "resource_link"][:_MOST_LINKS]
        found = list[JSON]()
        with suppress(TimeoutError, McpError):
            async with asyncio.timeout(_READ_S):
                for uri in links:
                    read = [read_contents(contents)[1] for contents in (await self._connection.read(str(uri)))[:1]]
                    found += [one for one in read if one]
        return found


class _Question:
    """A question of the server, which waits for its answer."""

    def __init__(self, message: str, schema: Any, answer: "asyncio.Future[Any]") -> None:
        self.message, self.schema, self.answer = message, schema, answer


async def _race(asking: Coroutine[Any, Any, None], work: "asyncio.Task[Any]") -> None:
    """Asks until there is an answer, or the call has ended by itself."""
    task = asyncio.create_task(asking)
    try:
        await asyncio.wait({task, work}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


def _coerced(schema: JSON, arguments: Mapping[str, Any]) -> JSON:
    """Returns the arguments; texts that a visitor typed become numbers and truth values where the schema says so."""
    found = dict(arguments)
    for name, value in arguments.items():
        kind = schema["properties"].get(name, {}).get("type")
        if isinstance(value, str) and kind in ("number", "integer", "boolean", "array", "object"):
            with suppress(ValueError, RecursionError):
                found[name] = json.loads(value)
    return found
