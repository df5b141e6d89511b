"""The agent loop: `create_agent`, followed event by event, with every model call's context told and bounded first."""

import gc
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from langchain_core.callbacks import adispatch_custom_event
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import BaseTool

from agent.calls import Rules, tool_middleware
from agent.commands import Command, folded
from agent.context import context_of, too_long
from agent.given import Given
from agent.translate import CONTEXT, Notes, translate
from backends import Backend
from runs.calls import Calls
from runs.contexts import abbreviate
from runs.events import Context, Event

if TYPE_CHECKING:  # langchain.agents costs two seconds of CPU: imported with the first turn, or warmed up before
    from langchain.agents.middleware import ModelRequest, ModelResponse

Place = Callable[[], AbstractAsyncContextManager[None]]

_LEAST = 64
"""Tokens that a result keeps, however little room there is."""
_SAFE = 0.9
"""Tokens are not spread evenly over a text."""


@dataclass(frozen=True, slots=True)
class Kit:
    """What a turn may do beside talking; `command` is done first. `rounds`: see `ToolSettings`."""

    tools: Sequence[BaseTool] = ()
    command: Command | None = None
    hidden: frozenset[str] = frozenset()
    """Tools that the command may use, and the model may not."""
    rules: Rules = field(default_factory=Rules)
    rounds: int = 8


def warm_up() -> None:
    """Imports what the first turn needs, and takes it out of garbage collection.

    All of it lives as long as the process. With it, every full collection held all pages and streams for 0.2 s.
    """
    import langchain.agents.middleware  # noqa: F401

    gc.freeze()


async def agent_events(
    model: BaseChatModel, backend: Backend, given: Given, kit: Kit, calls: Calls, place: Place = nullcontext
) -> AsyncGenerator[Event, None]:
    """Runs the agent on what it is given and yields its events; closing it ends the model's and the tools' own work.

    Each call of the model holds a `place` while it lasts.

    Raises RoundsError where the model calls tools more often than the kit allows.
    """
    from langchain.agents import create_agent

    middleware = [_model_middleware(backend, given, kit, calls, place), tool_middleware(calls, kit.rules)]
    agent: Any = create_agent(model, list(kit.tools), middleware=middleware, name="agent")
    notes = Notes(seen=frozenset(str(m.id) for m in given.messages[:-1]))
    limit = {"recursion_limit": 4 * (kit.rounds + 3)}  # ours is reached first, and says more
    stream = agent.astream_events({"messages": list(given.messages)}, version="v2", config=limit)
    async with aclosing(stream):
        async for raw in stream:
            found, notes = translate(raw, notes, time.time())
            for event in found:
                yield event


class RoundsError(Exception):
    """The model went on calling tools."""


def _model_middleware(backend: Backend, given: Given, kit: Kit, calls: Calls, place: Place) -> Any:
    from langchain.agents.middleware import AgentMiddleware, ModelResponse

    class ModelMiddleware(AgentMiddleware[Any, Any, Any]):
        """Before each call: a command goes first; what the model is given is fitted, told, and refused if too long."""

        asked = 0
        told: Context | None = None

        async def awrap_model_call(
            self,
            request: "ModelRequest[Any]",
            handler: "Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]",
        ) -> "ModelResponse[Any]":
            self.asked += 1
            if kit.command and self.asked == 1:
                return ModelResponse(result=[kit.command.message()])
            if self.asked > kit.rounds + 1 + bool(kit.command):
                raise RoundsError
            messages = await _fitted(backend, given, request.messages)
            if kit.command:
                messages = folded(messages, kit.command)
            context = await context_of(backend, given, messages)
            await adispatch_custom_event(CONTEXT, abbreviate(context, self.told))
            self.told = context
            if context.tokens > given.room:
                raise too_long(backend, given, context)
            offered = [one for one in request.tools if getattr(one, "name", None) not in kit.hidden]
            tools = offered if backend.chooses_tools else []
            async with place():
                return _named(await handler(request.override(messages=cast(Any, messages), tools=tools)), calls)

    return ModelMiddleware()


def _named(response: "ModelResponse[Any]", calls: Calls) -> "ModelResponse[Any]":
    """With a name, and an id of its own, for each tool call: some servers give none, and a result must say whose it is.

    One whose arguments cannot be read is a call, too: it fails, and the model is told why.
    """
    result = list(response.result)
    for place, message in enumerate(result):
        if not isinstance(message, AIMessage) or not (message.tool_calls or message.invalid_tool_calls):
            continue
        known, asked = set[str](), list[dict[str, Any]]()
        for call in (*message.tool_calls, *message.invalid_tool_calls):
            call_id = call["id"] if call["id"] and call["id"] not in known else f"call_{uuid4().hex}"
            known.add(call_id)
            args = call["args"] if isinstance(call["args"], dict) else {}
            if call["type"] == "invalid_tool_call":
                calls.unreadable.add(call_id)
            asked.append({"type": "tool_call", "name": call["name"] or "unnamed", "args": args, "id": call_id})
        result[place] = message.model_copy(update={"tool_calls": asked, "invalid_tool_calls": []})
    return replace(response, result=result)


async def _fitted(backend: Backend, given: Given, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The messages with what came in this run as the model reads it, and cut where it would not fit.

    What came before it has been read and fitted already.
    """
    known = {m.id for m in given.messages}
    fresh = [m for m in messages if m.id not in known]
    if not fresh:
        return list(messages)
    spent = (await context_of(backend, given, [m for m in messages if m not in fresh])).tokens
    readings = await backend.read([m.text for m in fresh], given.key)
    share = max(_LEAST, (given.room - spent) // len(fresh) - 2 * backend.template.user)
    share = min(share, backend.result_tokens or share)
    read = {}
    for message, reading in zip(fresh, readings, strict=True):
        text = reading.text
        if reading.tokens > share:
            kept = int(len(text) * share / reading.tokens * _SAFE)
            text = f"{text[:kept]}\n[cut: too long for this model]"
        if text != message.text:
            read[id(message)] = message.model_copy(update={"content": text})
    return [read.get(id(m), m) for m in messages]
