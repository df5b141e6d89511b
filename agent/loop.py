"""The agent loop: LangChain's `create_agent`, followed event by event."""

import asyncio
import gc
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext
from dataclasses import replace
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage

from agent.call_ids import CallIds
from agent.event_mapper import MapperState, map_event, map_interruption
from agent.model_input import ModelInput
from agent.model_middleware import STATE_MESSAGES, EnterSlot, initial_tags, model_middleware
from agent.thinking_end import EndableThinking
from agent.tool_middleware import tool_middleware
from agent.tool_set import ToolSet
from backends import Backend
from backends.activity import report_activity
from runs.events import Context, Event, ToolInput
from runs.sent_requests import SentRequests
from runs.tool_calls import ToolCalls


def warm_up() -> None:
    """Imports what the first turn needs, and exempts it from garbage collection.

    These modules stay loaded. Without the exemption, each full collection blocks the event loop for 0.2 s. The longest
    conversations have a million objects, whose collection takes 0.5 s: full ones are tried ten times as rarely.
    """
    import langchain.agents.middleware  # noqa: F401

    gc.freeze()
    gc.set_threshold(700, 10, 100)


async def agent_events(
    model: BaseChatModel,
    backend: Backend,
    model_input: ModelInput,
    tool_set: ToolSet,
    calls: ToolCalls,
    slot: EnterSlot = nullcontext,
    received: int = 0,
    alternatives: int | None = None,
    requests: SentRequests | None = None,
    thinking: EndableThinking | None = None,
) -> AsyncGenerator[Event, None]:
    """Runs the agent and yields its events. Closing the generator ends the work of the model and the tools.

    Each model call holds a `slot`. `received` is the number of output tokens of the run's earlier attempts; `requests`
    keeps the bodies of the calls' requests, and `thinking` can end their thinking. If the run fails or is cancelled,
    text that was held back as possible thinking is yielded before the exception.

    Raises RoundsError where the model calls tools more often than the tool set allows.
    """
    from langchain.agents import create_agent

    direct = tool_set.direct
    known = (call["id"] for one in model_input.messages if isinstance(one, AIMessage) for call in one.tool_calls)
    ids, model_calls = CallIds(call_id for call_id in known if call_id), 0
    sent = requests or SentRequests()
    model_calls_middleware = model_middleware(backend, model_input, tool_set, calls, slot, ids, sent, thinking)
    middleware = [model_calls_middleware, tool_middleware(calls, tool_set)]
    # LangChain would end the run without a reply: the model middleware makes the reply from the results instead
    tools = [
        tool.model_copy(update={"return_direct": False}) if tool.name in direct else tool for tool in tool_set.tools
    ]
    agent: Any = create_agent(model, tools, middleware=middleware, name="agent")
    first = model_input.messages[-STATE_MESSAGES:]
    seen = frozenset(str(m.id) for m in first[:-1])
    tags, price = initial_tags(backend, model_input), backend.settings.price
    state = MapperState(seen=seen, counted=received, tags=tags, alternatives=alternatives, price=price)
    limit = {"recursion_limit": 4 * (tool_set.rounds + 3)}  # RoundsError comes first, and says more
    stream = agent.astream_events({"messages": list(first)}, version="v2", config=limit)
    async with aclosing(stream):
        try:
            async for raw in stream:
                if raw["event"] == "on_chat_model_stream":
                    report_activity()  # also for a chunk that is empty
                model_calls += isinstance(raw["data"], Context)
                found, state = map_event(raw, state, time.monotonic())
                if model_calls and raw["event"] != "on_custom_event":  # the ids of custom events are mapped already
                    found = [_with_run_id(event, ids, model_calls - 1) for event in found]
                if state.thinks is not None:
                    backend.record_thinking(opened=state.thinks)
                    state = replace(state, tags=initial_tags(backend, model_input), thinks=None)
                for event in found:
                    yield event
        except (Exception, asyncio.CancelledError):
            found, state = map_interruption(state)
            if state.thinks is not None:
                backend.record_thinking(opened=state.thinks)
            for event in found:
                yield event
            raise


def _with_run_id(event: Event, ids: CallIds, model_call: int) -> Event:
    """Replaces the server's id of a tool call that is being written with the run's own."""
    if not isinstance(event, ToolInput):
        return event
    return replace(event, tool_call_id=ids.of(event.tool_call_id, model_call))
