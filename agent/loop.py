"""The agent loop: `create_agent`, followed event by event, with every model call's context told and bounded first."""

import gc
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import adispatch_custom_event
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage

from agent.given import Given
from agent.tools import tool_middleware
from agent.translate import CONTEXT, ROLES, Notes, translate
from backends import Backend
from runs import events
from runs.errors import ChatError
from runs.events import Event

if TYPE_CHECKING:  # langchain.agents costs two seconds of CPU: imported with the first turn, or warmed up before
    from langchain.agents.middleware import ModelRequest, ModelResponse

logger = logging.getLogger(__name__)


def warm_up() -> None:
    """Imports what the first turn needs, and takes it out of garbage collection.

    All of it lives as long as the process. With it, every full collection held all pages and streams for 0.2 s.
    """
    import langchain.agents.middleware  # noqa: F401

    gc.freeze()


async def agent_events(model: BaseChatModel, backend: Backend, given: Given) -> AsyncGenerator[Event, None]:
    """Runs the agent on what it is given and yields its events; closing it ends the model's own work."""
    from langchain.agents import create_agent

    middleware = [_context_middleware(backend, given), tool_middleware()]
    agent: Any = create_agent(model, list(backend.tools), middleware=middleware, name="agent")
    notes = Notes(seen=frozenset(str(m.id) for m in given.messages[:-1]))
    stream = agent.astream_events({"messages": list(given.messages)}, version="v2")
    async with aclosing(stream):
        async for raw in stream:
            found, notes = translate(raw, notes, time.time())
            for event in found:
                yield event


def _context_middleware(backend: Backend, given: Given) -> Any:
    from langchain.agents.middleware import AgentMiddleware

    class ContextMiddleware(AgentMiddleware[Any, Any, Any]):
        """Tells exactly what the model is given, and refuses what is too long, before the call."""

        async def awrap_model_call(
            self,
            request: "ModelRequest[Any]",
            handler: "Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]",
        ) -> "ModelResponse[Any]":
            told = await _context(backend, given, request.messages)
            await adispatch_custom_event(CONTEXT, told)
            if told["tokens"] > given.room:
                raise _too_long(backend, given, told)
            return await handler(request)

    return ContextMiddleware()


async def _context(backend: Backend, given: Given, messages: Sequence[BaseMessage]) -> events.JSON:
    """The fields of a `Context` event."""
    readings = await backend.read([m.text for m in messages])
    told: list[events.JSON] = []
    for message, reading in zip(messages, readings, strict=True):
        role = ROLES.get(message.type, message.type)
        tokens = reading.tokens + backend.template.message(role)
        told.append({"role": role, "content": message.text, "tokens": tokens})
    prompted = bool(told) and told[0]["role"] == "system"
    return {
        "messages": told,
        "left_out": given.left_out,
        "tokens": backend.template.once(prompted=prompted) + sum(m["tokens"] for m in told),
        "limit": given.room,
        "estimated": not backend.exact_counts,
    }


def _too_long(backend: Backend, given: Given, told: events.JSON) -> ChatError:
    """Says which part is too long, with the numbers."""
    last, room = told["messages"][-1]["tokens"], given.room
    fixed = told["tokens"] - sum(m["tokens"] for m in told["messages"][:-1] if m["role"] != "system")
    if fixed > room or given.memory != "full":
        what = f"Your message has {last:,} tokens, {fixed:,} with the system prompt"
        way_out = "Shorten it, or pick a backend with a longer context."
    else:
        what = f"The whole conversation has {told['tokens']:,} tokens"
        way_out = "Pick another memory mode, or a backend with a longer context."
    return ChatError("context_too_long", f"{what}; {backend.name} can be given at most {room:,}. {way_out}")
